"""What a row of the torture stands on: engines and a worker as processes, and what they use.

Rules: everything that is started is ended with the stage, whatever a row did. Figures are read from the kernel, of
the worker's process alone.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import psutil

from tests.proxy.conftest import Worker, a_model, a_plan, start_worker, wait_until_serving
from tests.torture.load import ask_once
from vllm_circus.config.models import Limits

MIB = 1 << 20
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Effort:
    """How long and how much: `quick` shows that the torture works, not what the relay stands."""

    quick: bool = False
    soak_seconds: float = 600.0
    fuzz_seconds: float = 60.0

    def of(self, full: int, quick: int) -> int:
        return quick if self.quick else full

    def within(self, bound: float) -> float:
        """A bound of time; wide in a quick run, which other tests run beside."""
        return bound * 10 if self.quick else bound


@dataclass(frozen=True)
class Result:
    """What a row found. `passed` None: it could not be tried here, and `figure` says why."""

    figure: str
    passed: bool | None


@dataclass(frozen=True)
class Row:
    """One line of the table: what is done to the relay, and what it owes."""

    name: str
    title: str
    bound: str
    run: Callable[[Effort], Awaitable[Result]]


@dataclass
class Engine:
    """A running engine."""

    port: int
    process: subprocess.Popen[bytes]

    async def seen(self) -> dict[str, Any]:
        """What it has seen: `open`, `requests`, `bytes`, `odd`."""
        answer = await ask_once(self.port, b"GET /torture HTTP/1.1\r\nHost: x\r\n\r\n")
        found: dict[str, Any] = json.loads(answer.body)
        return found

    def kill(self) -> None:
        """As the kernel's memory killer would."""
        self.process.kill()
        self.process.wait()


def start_engine(port: int = 0) -> Engine:
    """An engine on this port."""
    argv = [sys.executable, "-m", "tests.torture.engine", "--port", str(port)]
    process = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout is not None
    line = process.stdout.readline()
    process.stdout.close()
    return Engine(int(line), process)


@dataclass
class Stage:
    """A worker in front of engines; models are called alpha, beta, gamma."""

    worker: Worker
    engines: list[Engine] = field(default_factory=list)

    @property
    def port(self) -> int:
        return self.worker.port

    @property
    def pid(self) -> int:
        return self.worker.process.pid

    def rss(self) -> int:
        """Resident bytes of the worker."""
        rss: int = psutil.Process(self.pid).memory_info().rss
        return rss

    def cpu(self) -> float:
        """Seconds that the worker has used."""
        return sum(psutil.Process(self.pid).cpu_times()[:2])

    def files(self) -> int:
        """Descriptors that the worker has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))  # noqa: PTH208 - the number alone

    def log_lines(self) -> int:
        return self.worker.log.read_bytes().count(b"\n")

    def healthy(self) -> str:
        """Empty, or what is wrong with the worker itself."""
        if self.worker.process.poll() is not None:
            return f", the worker ended with {self.worker.process.returncode}"
        return ", a traceback is in its log" if b"Traceback" in self.worker.log.read_bytes() else ""


MODELS = ("alpha", "beta", "gamma")


@asynccontextmanager
async def stage(
    models: int = 1, *, limits: Limits | None = None, nofile: int | None = None, ports: tuple[int, ...] = ()
) -> AsyncIterator[Stage]:
    """A worker and its engines, warmed up; `ports` are those of engines that somebody else plays."""
    home = Path(tempfile.mkdtemp(prefix="vct", dir="/tmp"))
    made = Stage.__new__(Stage)
    made.engines = [] if ports else [start_engine() for _ in range(models)]
    used = ports or tuple(engine.port for engine in made.engines)
    plan = a_plan(home, *map(a_model, MODELS, used), limits=limits or Limits())
    made.worker = start_worker(plan, nofile=nofile)
    try:
        wait_until_serving(made.worker)
        for _ in range(20):
            await ask_once(made.port)
        yield made
    finally:
        made.worker.process.kill()
        made.worker.process.wait()
        for engine in made.engines:
            engine.kill()
        shutil.rmtree(home, ignore_errors=True)


async def until(condition: Callable[[], Awaitable[bool]], seconds: float) -> float | None:
    """Seconds until it came true, or None."""
    began = perf_counter()
    while perf_counter() - began < seconds:
        if await condition():
            return perf_counter() - began
        await asyncio.sleep(0.01)
    return None
