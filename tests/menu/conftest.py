"""A home of its own with models on its disk and GPUs in its machine, for menus that a script or a terminal drives."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests import nvml_stub
from tests.catalogue.samples import GIB, adapter_folder, in_cache, model_folder
from tests.menu.screen import Screen
from tests.menu.scripted import Scripted
from vllm_circus import facts, gpu
from vllm_circus.cli.common import Session
from vllm_circus.gpu import Gpu, Holder
from vllm_circus.menu.context import Context
from vllm_circus.menu.wizard import machine
from vllm_circus.paths import Instance, find_instance

PROGRAM = str(Path(sys.executable).with_name("vllm-circus"))
LLAMA, QWEN = "meta-llama/Meta-Llama-3-8B", "Qwen/Qwen3-0.6B"


def gpu_of(index: int, **changes: Any) -> Gpu:
    """A card of 80 GiB that nobody uses."""
    values = {"name": "NVIDIA H100 80GB HBM3", "uuid": f"GPU-{index}", "memory_total": 80 * GIB, "memory_used": 0}
    return Gpu(index=index, **{**values, "utilisation": 0, "temperature": 30, **changes})


def fill_cache(hub: Path) -> Path:
    """Hugging Face's cache with two models and an adapter of the first."""
    sources = hub.parent / "sources"
    in_cache(hub, LLAMA, model_folder(sources / "llama"))
    in_cache(hub, QWEN, model_folder(sources / "qwen", size=GIB), commit="2" * 40)
    in_cache(hub, "ann/sql-lora", adapter_folder(sources / "sql", LLAMA), commit="3" * 40)
    return hub


@dataclass
class Room:
    """A machine for scripted menus: what is asked for is in `asker` afterwards."""

    instance: Instance
    environ: dict[str, str]
    asker: Scripted = field(default_factory=lambda: Scripted([]))

    def context(self, *answers: Any) -> Context:
        """A menu's context that answers so."""
        self.asker = Scripted(list(answers))
        return Context(Session(), self.instance, self.asker, self.environ)

    @property
    def said(self) -> str:
        """Everything that was shown."""
        return "\n".join(self.asker.shown)


@pytest.fixture
def cards(monkeypatch: pytest.MonkeyPatch) -> list[Gpu]:
    """The GPUs of this process, two at first; a test changes the list."""
    found = [gpu_of(0), gpu_of(1)]
    monkeypatch.setattr(gpu, "list_gpus", lambda: tuple(found))
    monkeypatch.setattr(gpu, "list_holders", lambda: {one.index: (Holder(os.getpid(), GIB),) for one in found[:1]})
    return found


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """The ports that somebody listens on, none at first; a test changes the set."""
    ports: set[int] = set()
    monkeypatch.setattr(facts, "listening_ports", lambda: frozenset(ports))
    monkeypatch.setattr(machine, "who_listens", lambda _port: "nginx (process 7)")
    return ports


@pytest.fixture
def room(short_dir: Path, monkeypatch: pytest.MonkeyPatch, cards: list[Gpu], busy: set[int]) -> Room:
    """A home, two GPUs, two models and an adapter on the disk, no port in use, and no vLLM."""
    monkeypatch.setenv("VLLM_CIRCUS_HOME", str(short_dir))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    hub = fill_cache(short_dir / "hub")
    return Room(find_instance(), {**os.environ, "HF_HUB_CACHE": str(hub)})


@pytest.fixture(scope="session")
def nvml_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled stand-in for the driver's library."""
    return nvml_stub.build(tmp_path_factory.mktemp("nvml"))


@dataclass
class Terminal:
    """The real program on a terminal, in a home of its own with four GPUs."""

    home: Path
    environ: dict[str, str]

    def __call__(self, *arguments: str, columns: int = 80, rows: int = 24, **environ: str) -> Screen:
        """The program, started; with no arguments it opens the menu."""
        return Screen(PROGRAM, arguments, {**self.environ, **environ}, columns, rows)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command to its end, without a terminal."""
        return subprocess.run(
            [PROGRAM, *arguments], env=self.environ, capture_output=True, text=True, check=False, timeout=120
        )


@pytest.fixture
def terminal(short_dir: Path, nvml_library: Path) -> Iterator[Terminal]:
    """Nothing of it runs on afterwards."""
    state = nvml_stub.write_state(short_dir / "gpus", {"count": 4, "memory_used.0": 12 * GIB, "utilisation.0": 37})
    environ = {
        **nvml_stub.environment(nvml_library, state),
        "VLLM_CIRCUS_HOME": str(short_dir),
        "HF_HUB_CACHE": str(fill_cache(short_dir / "hub")),
        "PATH": "/usr/bin:/bin",
    }
    for name in ("NO_COLOR", "VLLM_CIRCUS_PLAIN"):
        environ.pop(name, None)
    terminal = Terminal(short_dir, environ)
    yield terminal
    terminal.run("down", "--timeout", "20")


MakePort = Callable[[], int]


@pytest.fixture
def home(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where everything of this test is, the operator's home and the cache of models included."""
    monkeypatch.setenv("VLLM_CIRCUS_HOME", str(short_dir))
    monkeypatch.setenv("HOME", str(short_dir / "home"))
    monkeypatch.setenv("HF_HOME", str(short_dir / "hf"))
    (short_dir / "home").mkdir()
    return short_dir


@pytest.fixture
def instance(home: Path) -> Instance:
    """The default instance there."""
    return find_instance()


@pytest.fixture
def menu(instance: Instance) -> Callable[..., Scripted]:
    """Runs a menu with answers until it ends; returns what was asked and shown. All answers have to be taken."""

    def run(function: Callable[..., object], *answers: Any) -> Scripted:
        asker = Scripted(list(answers))
        function(Context(Session(), instance, asker, dict(os.environ)))
        assert asker.answers == [], f"not asked for: {asker.answers}; asked: {asker.titles}"
        return asker

    return run
