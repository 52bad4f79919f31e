"""A real daemon in a process of its own, and eyes for what it starts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

import pytest

from tests.supervise.plans import make_instance
from vllm_circus.errors import NotRunning
from vllm_circus.logline import decode
from vllm_circus.paths import Instance
from vllm_circus.plan.types import Plan, dump_plan
from vllm_circus.supervise.client import Client
from vllm_circus.supervise.proc import every_process, read_process
from vllm_circus.supervise.sweep import find_leftovers

ROOT = Path(__file__).parents[2]
T = TypeVar("T")


def wait_for(what: Callable[[], T], seconds: float = 30.0) -> T:
    """The first true answer; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (answer := what()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.01)
    return answer


def is_gone(pid: int) -> bool:
    """Absent, or a zombie that only its parent can take away."""
    process = read_process(pid)
    return process is None or not process.alive


def session_of(leader: int) -> set[int]:
    """Living members of a session."""
    return {process.pid for process in every_process() if process.session == leader and process.alive}


@dataclass
class Daemon:
    """A circusd of ours under test."""

    instance: Instance
    process: subprocess.Popen[str]
    client: Client = field(init=False)

    def __post_init__(self) -> None:
        self.client = Client(self.instance.control, timeout=10.0)

    def wait_active(self, *watchers: str) -> None:
        def active() -> bool:
            assert self.process.poll() is None, self.process.communicate()
            try:
                statuses = self.client.status()
            except NotRunning:
                return False
            return all(statuses.get(watcher) == "active" for watcher in watchers)

        wait_for(active)

    def pid_of(self, watcher: str) -> int:
        self.wait_active(watcher)
        (pid,) = self.client.pids(watcher)
        return pid

    def log(self, part: str) -> list[str]:
        path = self.instance.log(part)
        lines = path.read_text().splitlines() if path.exists() else []
        return [line.text for raw in lines if (line := decode(raw))]

    def wait_log(self, part: str, text: str) -> str:
        return wait_for(lambda: next((line for line in self.log(part) if text in line), ""))

    def end(self, signum: int = signal.SIGTERM, seconds: float = 30.0) -> int:
        self.process.send_signal(signum)
        return self.process.wait(seconds)

    def leftovers(self) -> tuple[int, ...]:
        return tuple(process.pid for process in find_leftovers(self.instance))


class Start(Protocol):
    def __call__(
        self, plan: Plan, *, manual: bool = False, extra: str = "", env: dict[str, str] | None = None
    ) -> Daemon:
        """Start a daemon on `plan`."""


@pytest.fixture
def instance(short_dir: Path) -> Instance:
    return make_instance(short_dir)


@pytest.fixture
def start(short_dir: Path, instance: Instance) -> Iterator[Start]:
    """Starts daemons; at the end of the test they and what they left are killed."""
    daemons: list[Daemon] = []

    def begin(plan: Plan, *, manual: bool = False, extra: str = "", env: dict[str, str] | None = None) -> Daemon:
        plan_file, extra_file = short_dir / f"plan{len(daemons)}", short_dir / f"extra{len(daemons)}"
        plan_file.write_bytes(dump_plan(plan))
        extra_file.write_text(extra)
        command = [sys.executable, "-m", "tests.supervise.serve", str(plan_file), str(extra_file)]
        process = subprocess.Popen(
            [*command, *(["--manual"] if manual else [])],
            cwd=ROOT, env=os.environ | (env or {}), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        daemons.append(Daemon(plan.instance, process))
        return daemons[-1]

    yield begin
    for daemon in daemons:
        daemon.client.close()
        daemon.process.kill()
        daemon.process.communicate()
    for daemon in daemons:
        for pid in daemon.leftovers():
            os.kill(pid, signal.SIGKILL)
