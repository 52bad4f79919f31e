"""GPUs given from one engine to the next under a real circusd: a driver and engines that agree on who has what memory.

The engines are vLLM for all that the set knows. Their program is a script that runs the simulator, whose cards are
those that the stand-in for the driver's library tells of.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import nvml_stub
from vllm_circus.lifecycle.states import State

from .conftest import wait_until
from .sets import Set, alive, assert_nothing_failed_inside, free_port, run, session

pytestmark = pytest.mark.e2e
GIB = 1 << 30


@dataclass
class Cards:
    """The folder that says who has how much of GPU 0."""

    folder: Path

    def awake(self) -> set[int]:
        """The living processes that have more than what a sleeping engine keeps."""
        files = [file for file in self.folder.glob("*.0") if alive(int(file.stem))]
        return {int(file.stem) for file in files if int(file.read_text() or 0) > GIB}


@dataclass
class Shared:
    """A set with two models that take turns on GPU 0."""

    set: Set
    cards: Cards
    models: Path


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    base = tmp_path_factory.mktemp("gpus")
    cards, models = base / "cards", base / "models"
    for folder in (cards, models / "a", models / "b"):
        folder.mkdir(parents=True)
    for name in "ab":
        (models / name / "config.json").write_text("{}")
    program = base / "vllm"
    words = f"{sys.executable} -m vllm_circus.simulator"
    program.write_text(f'#!/bin/sh\ncommand=$1; shift\nexec {words} "$command" "$@" --sim-gpus {cards}\n')
    program.chmod(0o755)
    state = nvml_stub.write_state(base / "nvml", {"count": 1, "holders": cards})
    environ = nvml_stub.environment(nvml_stub.build(base), state)
    probe = {"interval": 0.3, "timeout": 1.0}
    restart = {"first_delay": 0.5, "factor": 1, "max_tries": 2}
    options = {"gpus": [0], "exclusive": "card", "sleep": True, "turn": 2, "executable": str(program)}
    common = {**options, "probe": probe, "restart": restart, "stop_timeout": 2}
    port = free_port()
    config = {
        "proxy": {"host": "127.0.0.1", "port": port},
        "models": [{"name": name, "model": str(models / name), "port": free_port(), **common} for name in "ab"],
    }
    with run(config, port, environ) as running:
        running.wait("a", State.READY)
        yield Shared(running, Cards(cards), models)


def test_one_of_two_that_share_a_gpu_is_awake_at_a_time(shared: Shared) -> None:
    running = shared.set
    assert len(shared.cards.awake()) == 1
    seen = set()

    def is_ready(name: str) -> bool:
        seen.add(len(shared.cards.awake()))
        return running.model(name).state is State.READY

    for name in ("b", "a", "b"):
        running.wish("start", name)
        wait_until(lambda name=name: is_ready(name), 30)  # type: ignore[misc]  # mypy cannot infer its type
        assert running.chat(name)[0] == 200
    assert seen <= {0, 1}
    assert running.model("a").state is State.SLEEPING


def test_a_killed_server_comes_back_when_the_memory_of_its_engine_has(shared: Shared) -> None:
    running = shared.set
    before = running.wait("b", State.READY)
    assert before.pid is not None
    engine = shared.cards.awake()
    assert engine < session(before.pid)
    os.kill(before.pid, signal.SIGKILL)  # and its engine lives on, with the memory
    wait_until(lambda: running.model("b").pid not in {before.pid, None})
    assert running.wait("b", State.READY).tries <= 1
    assert not shared.cards.awake() & engine
    log = running.instance.log("b").read_text()
    assert "Free memory on device" not in log


def test_memory_that_somebody_else_has_keeps_a_model_from_starting_and_is_told(shared: Shared) -> None:
    running = shared.set
    running.wish("stop", "b")
    running.wait("b", State.STOPPED)
    running.wish("stop", "a")
    running.wait("a", State.STOPPED)
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as other:
        (shared.cards.folder / f"{other.pid}.0").write_text(str(60 * GIB))
        running.wish("start", "a")
        try:
            why = wait_until(lambda: (crash := running.model("a").crash) and crash.why, 30)
        finally:
            other.kill()
        assert why.signature == "preflight"
        assert f"has 20.0 of its 80.0 GiB free, and it takes 73.6: process {other.pid} (python" in why.cause
    running.wait("a", State.READY)
    assert "Free memory on device" not in running.instance.log("a").read_text()


def test_a_model_that_is_gone_from_the_disk_is_not_started(shared: Shared) -> None:
    running = shared.set
    (shared.models / "b" / "config.json").unlink()
    running.wish("start", "b")
    failed = running.wait("b", State.FAILED)
    assert failed.reason == f"not started: {shared.models}/b holds no config.json"
    assert failed.fix == "name the model's own folder, or finish its download"


def test_nothing_failed_inside_the_plugins(shared: Shared) -> None:
    assert_nothing_failed_inside(shared.set)
