"""The real console script, with simulated engines, in a home of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

PROGRAM = str(Path(sys.executable).with_name("vllm-circus"))
PATIENCE = 120.0  # seconds; the machine may be busy with other things


def await_that(what: Callable[[], object], within: float = PATIENCE) -> None:
    """Wait until `what` is true; fails after `within` seconds."""
    deadline = time.monotonic() + within
    while not what():
        assert time.monotonic() < deadline, f"not within {within:g} s: {what}"
        time.sleep(0.05)


@dataclass
class Circus:
    """One instance, driven through the command line."""

    home: Path
    name: str = "default"
    children: list[subprocess.Popen[str]] = field(default_factory=list)
    environ_too: Mapping[str, str] = field(default_factory=dict)

    @property
    def environ(self) -> dict[str, str]:
        """What every process of it gets."""
        rest = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
        return {**rest, **self.environ_too, "VLLM_CIRCUS_HOME": str(self.home)}

    def _command(self, *arguments: str) -> list[str]:
        """With the instance's name, which the demo alone does not take: it has one of its own."""
        return [PROGRAM, *(() if arguments[0] == "demo" else ("--instance", self.name)), *arguments]

    def __call__(self, *arguments: str, code: int = 0, within: float = PATIENCE) -> subprocess.CompletedProcess[str]:
        """Run a command to its end and check its exit code."""
        command = self._command(*arguments)
        done = subprocess.run(command, capture_output=True, text=True, env=self.environ, timeout=within, check=False)
        assert done.returncode == code, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}\n{self.tails()}"
        assert "Traceback" not in done.stderr
        return done

    def begin(self, *arguments: str) -> subprocess.Popen[str]:
        """Run a command that goes on."""
        command = self._command(*arguments)
        child = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self.environ, start_new_session=True
        )
        self.children.append(child)
        return child

    def status(self) -> dict[str, Any]:
        """`status --json` with the word of every plugin: who has no core for a moment is shown as silent."""
        deadline = time.monotonic() + PATIENCE
        while True:
            document = self.status_at_once()
            if all(plugin["alive"] for plugin in document["plugins"]):
                return document
            assert time.monotonic() < deadline, f"not within {PATIENCE:g} s: {document['plugins']}"

    def status_at_once(self) -> dict[str, Any]:
        """`status --json`, whoever is silent."""
        document: dict[str, Any] = json.loads(self("status", "--json").stdout)
        return document

    def model(self, name: str) -> dict[str, Any]:
        """One model of the status."""
        found: dict[str, Any] = next(model for model in self.status()["models"] if model["name"] == name)
        return found

    def processes(self) -> list[int]:
        """Every living process that carries this instance's mark."""
        return marked(f"VLLM_CIRCUS_MARK={self.home}/run/{self.name}".encode())

    def tails(self) -> str:
        """The ends of the logs, for a test that fails."""
        logs = sorted((self.home / "log" / self.name).glob("*.log"))
        return "\n".join(f"== {log.name}\n{log.read_text()[-1500:]}" for log in logs)

    def end(self) -> None:
        """Leave nothing behind, whatever a test did."""
        for child in self.children:
            if child.poll() is None:
                child.send_signal(signal.SIGKILL)
            child.communicate()
        subprocess.run(
            [PROGRAM, "--instance", self.name, "down", "--timeout", "20"],
            env=self.environ,
            capture_output=True,
            check=False,
        )


def marked(mark: bytes) -> list[int]:
    """Pids of living processes with this variable in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (path / "environ").read_bytes().split(b"\0"):
                found.append(int(path.name))
        except OSError:
            continue
    return found


@pytest.fixture
def circus(short_dir: Path) -> Iterator[Circus]:
    """The default instance in a home of its own; nothing of it is left afterwards."""
    circus = Circus(short_dir)
    yield circus
    circus.end()
    assert circus.processes() == []


def with_ports(models: str, ports: Mapping[str, int]) -> str:
    """These lines of models with a port in each: one that is chosen at the start may be somebody else's by then."""
    return re.sub(r"\{name: (\w+),", lambda found: f"{found[0]} port: {ports[found[1]]},", models)


def ports_in_a_row(free_port: Callable[[], int], number: int) -> int:
    """The first of so many free ports in a row, as replicas have them."""
    while True:
        first = free_port()
        with ExitStack() as taken, suppress(OSError):
            for port in range(first, first + number):
                taken.enter_context(socket.create_server(("127.0.0.1", port)))
            return first


@pytest.fixture
def models_file(short_dir: Path, free_port: Callable[[], int]) -> Path:
    """Two simulated models and a disabled one, on ports that are free."""
    return write_models(short_dir / "models.yaml", free_port)


def write_models(path: Path, free_port: Callable[[], int], **options: object) -> Path:
    """A models file of simulated models; `options` become engine options of `beta`."""
    path.write_text(
        f"""\
proxy: {{host: 127.0.0.1, port: {free_port()}}}
defaults: {{engine: simulator, drain_timeout: 5, stop_timeout: 5}}
models:
  - {{name: alpha, model: sim/alpha, aliases: [first], port: {free_port()}}}
  - {{name: beta, model: sim/beta, port: {free_port()}, args: {json.dumps(options)}}}
  - {{name: gamma, model: sim/gamma, port: {free_port()}, enabled: false}}
"""
    )
    return path
