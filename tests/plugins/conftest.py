"""Plans in private folders, a clock that is set by hand, a circus that is played, and waiting with an end."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.plans import model_plan
from vllm_circus.config.models import Limits
from vllm_circus.errors import CircusError
from vllm_circus.lifecycle.events import Moment
from vllm_circus.paths import Instance
from vllm_circus.plan.types import PLAN_VERSION, ModelPlan, Plan, ProxyPlan


@pytest.fixture
def instance(short_dir: Path) -> Instance:
    made = Instance("t", *(short_dir / part for part in ("config", "state", "log", "run")))
    for folder in (made.state_dir, made.log_dir, made.run_dir, made.secrets):
        folder.mkdir()
    return made


def make_plan(instance: Instance, *models: ModelPlan) -> Plan:
    proxy = ProxyPlan("127.0.0.1", 8000, 1, (), True, False, None, 30.0, Limits(), None, None)
    return Plan(PLAN_VERSION, instance, "models.yaml", proxy, models or (model_plan("a"), model_plan("b", gpus=(1,))))


@dataclass
class Clock:
    steady: float = 1000.0
    ahead: float = 1e9
    """Of the steady clock: changed where somebody sets the wall clock."""

    def __call__(self) -> Moment:
        return Moment(self.steady, self.steady + self.ahead)


def wait_until(is_true: Callable[[], Any], seconds: float = 15.0) -> Any:
    """The first true answer, from plain code."""
    deadline = time.monotonic() + seconds
    while not (answer := is_true()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
    return answer


async def until(is_true: Callable[[], Any], seconds: float = 15.0) -> Any:
    """The first true answer, while the loop runs."""
    deadline = time.monotonic() + seconds
    while not (answer := is_true()):
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.01)
    return answer


@dataclass
class FakeCircus:
    """Watchers with one real process each, which nobody but us starts and reaps."""

    command: tuple[str, ...] = (sys.executable, "-c", "import time; time.sleep(60)")
    calls: list[str] = field(default_factory=list)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    started: set[str] = field(default_factory=set)
    refusals: int = 0

    def _said(self, call: str, watcher: str) -> None:
        self.calls.append(f"{call} {watcher}")

    async def status(self) -> dict[str, str]:
        watchers = {"model-a", "model-b", *self.processes}
        return {watcher: "active" if watcher in self.started else "stopped" for watcher in watchers}

    async def refit(self) -> None:
        self.calls.append("refit")

    async def pids(self, watcher: str) -> list[int]:
        return [self.processes[watcher].pid] if watcher in self.started else []

    async def start(self, watcher: str) -> list[int]:
        self._said("start", watcher)
        if self.refusals:
            self.refusals -= 1
            raise CircusError("arbiter is already running watcher_stop command")
        if watcher in self.started:
            return []
        self.launch(watcher)
        return [self.processes[watcher].pid]

    def launch(self, watcher: str) -> None:
        self.processes[watcher] = subprocess.Popen(self.command, start_new_session=True)
        self.started.add(watcher)

    async def stop(self, watcher: str) -> None:
        self._said("stop", watcher)
        self.processes[watcher].kill()
        self.processes[watcher].wait()
        self.started.discard(watcher)

    async def signal(self, watcher: str, signum: int, pid: int | None = None) -> None:
        self._said(f"signal {int(signum)}", watcher)
        assert pid == self.processes[watcher].pid
        self.processes[watcher].send_signal(signum)

    def end(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()


@pytest.fixture
def circus() -> Iterator[FakeCircus]:
    fake = FakeCircus()
    yield fake
    fake.end()
