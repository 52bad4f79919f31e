"""A machine to plan for: nothing here looks at the real one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from vllm_circus.config.load import parse_config
from vllm_circus.errors import ConfigError
from vllm_circus.facts import Disk, Facts
from vllm_circus.gpu import Gpu
from vllm_circus.paths import Instance
from vllm_circus.plan.decide import make_plan
from vllm_circus.plan.types import ModelPlan, Plan

SOURCE = Path("/etc/vc/models.yaml")
RUN = Path("/run/vc/default")


def gpu(index: int) -> Gpu:
    """A GPU of 80 GiB."""
    return Gpu(index, f"GPU-{index}", "NVIDIA H100", 80 << 30, 0, 0, 30)


FACTS = Facts(
    gpus=tuple(gpu(index) for index in range(8)),
    busy_ports=frozenset(),
    cores=8,
    programs={"vllm": "/opt/vllm/bin/vllm", "python": "/usr/bin/python3"},
)


@dataclass
class FakeDisk(Disk):
    """Files with their modes, folders, and programs on the PATH."""

    files: dict[str, int] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)
    programs: dict[str, str] = field(default_factory=dict)
    texts: dict[str, str | None] = field(default_factory=dict)
    misfits: str = ""

    def exists(self, path: Path) -> bool:
        return str(path) in self.folders or str(path) in self.files

    def is_folder(self, path: Path) -> bool:
        return str(path) in self.folders

    def misfit(self, certificate: Path, key: Path) -> str:
        return self.misfits

    def mode(self, path: Path) -> int | None:
        return self.files.get(str(path))

    def text(self, path: Path) -> str | None:
        return self.texts.get(str(path), "something\n") if str(path) in self.files else None

    def version(self, path: Path) -> str | None:
        return self.text(path)

    def home(self) -> Path:
        return Path("/home/me")

    def which(self, program: str) -> str | None:
        return self.programs.get(program)


@dataclass(frozen=True)
class Planner:
    """Plans the text of a models file on the fake machine."""

    facts: Facts = FACTS
    disk: FakeDisk = field(default_factory=FakeDisk)

    def given(self, **facts: Any) -> Planner:
        """The same with other facts."""
        return replace(self, facts=replace(self.facts, **facts))

    def plan(self, text: str) -> Plan:
        """The plan; fails the test on a fault."""
        loaded = parse_config(text.encode(), SOURCE)
        return make_plan(loaded, Instance("default", Path("/etc/vc"), RUN, RUN, RUN), self.facts, self.disk)

    def model(self, text: str) -> ModelPlan:
        """The only model of the plan."""
        (model,) = self.plan(text).models
        return model

    def faults(self, text: str) -> list[str]:
        """What is wrong, as `line place: message (fix)`."""
        with pytest.raises(ConfigError) as caught:
            self.plan(text)
        return [str(fault).removeprefix(f"{SOURCE}:") for fault in caught.value.faults]


@pytest.fixture
def planner() -> Planner:
    """A machine with 8 GPUs, 8 cores and vLLM."""
    return Planner()


@pytest.fixture
def options(planner: Planner) -> Callable[[str], list[str]]:
    """A function that gives the words behind the served names in the argument vector of a model `a`."""

    def find(rest: str) -> list[str]:
        argv = planner.model(f"models:\n- name: a\n  model: org/a\n{rest}").argv
        return list(argv[argv.index("--served-model-name") + 2 :])

    return find
