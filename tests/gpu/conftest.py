"""A machine with as many GPUs, and as broken ones, as a test wants."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests import nvml_stub

LIST_GPUS = """
import dataclasses, json
from vllm_circus.gpu import NoDriver, list_gpus
try:
    print(json.dumps([dataclasses.asdict(gpu) for gpu in list_gpus()]))
except NoDriver as error:
    print(json.dumps({"message": str(error), "hint": error.hint}))
"""


@pytest.fixture(scope="session")
def nvml_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled stub."""
    return nvml_stub.build(tmp_path_factory.mktemp("nvml"))


@dataclass(frozen=True)
class Machine:
    """Processes started here see the cards that were described."""

    environ: dict[str, str]

    def python(self, code: str) -> str:
        """What a program prints here; it must end well."""
        run = subprocess.run([sys.executable, "-c", code], env=self.environ, capture_output=True, text=True, check=True)
        return run.stdout

    def list_gpus(self) -> Any:
        """What `list_gpus` returns here, or the NoDriver it raises, as plain data."""
        return json.loads(self.python(LIST_GPUS))

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`vllm-circus WORDS…` run here."""
        argv = [sys.executable, "-m", "vllm_circus", *words]
        return subprocess.run(argv, env=self.environ, capture_output=True, text=True, check=False)


MakeMachine = Callable[[Mapping[str, object]], Machine]


@pytest.fixture
def machine(nvml_library: Path, tmp_path: Path) -> MakeMachine:
    """A function from the stub's state to a machine."""

    def make(state: Mapping[str, object]) -> Machine:
        path = nvml_stub.write_state(tmp_path / "nvml-state", state)
        return Machine(nvml_stub.environment(nvml_library, path))

    return make


@pytest.fixture
def machine_without_library(tmp_path: Path) -> Machine:
    """A machine whose dynamic loader cannot load libnvidia-ml.so.1, also where a real one is installed."""
    tmp_path.joinpath(nvml_stub.LIBRARY).write_bytes(b"this is no library")
    return Machine(nvml_stub.environment(tmp_path / nvml_stub.LIBRARY, tmp_path / "none"))
