"""A scene to judge: an instance in a home of its own, and as much of a plan as a test wants."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.plan.conftest import Planner
from vllm_circus.checkup.findings import Found, Verdict
from vllm_circus.checkup.patience import Answer
from vllm_circus.checkup.scene import Scene
from vllm_circus.gpu import Gpu
from vllm_circus.paths import Instance, find_instance
from vllm_circus.plan.types import Plan

TWO_MODELS = """\
proxy: {host: 127.0.0.1}
models:
  - {name: a, model: org/a, port: 8001}
  - {name: b, model: org/b, port: 8002, enabled: false}
"""


@pytest.fixture
def instance(short_dir: Path) -> Instance:
    """The default instance of a home of its own; none of its folders is there."""
    return find_instance(environ={"VLLM_CIRCUS_HOME": str(short_dir)})


@pytest.fixture
def scene(instance: Instance, short_dir: Path) -> Scene:
    """Nothing configured, nothing running, no GPU."""
    no_gpus: Answer[tuple[Gpu, ...]] = Answer(())
    return Scene(instance, {"HOME": str(short_dir)}, no_gpus)


MakePlan = Callable[[str], Plan]


@pytest.fixture
def plan_of(planner: Planner, instance: Instance) -> MakePlan:
    """The plan of a models file's text, for that instance."""
    return lambda text: replace(planner.plan(text), instance=instance)


@pytest.fixture
def planner() -> Planner:
    """A machine with 8 GPUs, 8 cores and vLLM."""
    return Planner()


def verdicts(found: Iterator[Found]) -> list[Verdict]:
    """The verdicts alone."""
    return [each.verdict for each in found]


@contextmanager
def listening(port: int = 0, host: str = "127.0.0.1") -> Iterator[int]:
    """A port on which this process listens."""
    with socket.socket() as server:
        server.bind((host, port))
        server.listen()
        yield server.getsockname()[1]
