"""A command line in a home of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from vllm_circus import facts
from vllm_circus.cli.outcome import run_safely
from vllm_circus.paths import Instance, find_instance


@dataclass(frozen=True)
class Outcome:
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str


Command = Callable[..., Outcome]


@pytest.fixture
def home(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A private VLLM_CIRCUS_HOME."""
    monkeypatch.setenv("VLLM_CIRCUS_HOME", str(short_dir))
    monkeypatch.delenv("NO_COLOR", raising=False)
    return short_dir


@pytest.fixture
def instance(home: Path) -> Instance:
    """The default instance of that home."""
    return find_instance()


@pytest.fixture
def command(home: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command line in this process."""

    def run(*arguments: str) -> Outcome:
        capsys.readouterr()
        code = run_safely(arguments)
        shown = capsys.readouterr()
        return Outcome(code, shown.out, shown.err)

    return run


@pytest.fixture
def models_file(home: Path, free_port: Callable[[], int]) -> Path:
    """Two simulated models on ports that are free."""
    path = home / "models.yaml"
    path.write_text(
        f"""\
proxy: {{host: 127.0.0.1, port: {free_port()}}}
defaults: {{engine: simulator}}
models:
  - {{name: alpha, model: sim/alpha, aliases: [first], port: {free_port()}}}
  - {{name: beta, model: sim/beta, port: {free_port()}, enabled: false}}
"""
    )
    return path


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens on any port: the files name the usual ones."""
    monkeypatch.setattr(facts, "listening_ports", frozenset)
