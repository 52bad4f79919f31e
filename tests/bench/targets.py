"""What is measured: the mock engine itself, and proxies in front of it, each in a process of its own.

A proxy is a `Proxy`: its name, whether it is there, and how it is started (circus.py, rivals.py). Each gets the
fastest settings that its makers document for such traffic, and nothing that a user could not set.
"""

from __future__ import annotations

import http.client
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.bench.load import BenchError
from tests.bench.process import Cores, end, start
from tests.bench.wire import KEY, PATH, make_request

DIRECT = "direct"

#: Seconds that a process may take until it answers.
_START_TIMEOUT = 90.0


@dataclass(frozen=True)
class Stage:
    """What proxies are put on: a folder for their files, cores, the mock engines' port and processes: mostly one."""

    home: Path
    cores: Cores
    engine: int
    engine_pids: tuple[int, ...]

    @property
    def load(self) -> tuple[tuple[int, ...], ...]:
        """The processes that make the load, those on one core together."""
        ours = os.getpid()
        if self.cores.load == self.cores.engine:
            return ((ours, *self.engine_pids),)
        return ((ours,), *((pid,) for pid in self.engine_pids))

    @property
    def helpers(self) -> tuple[int, ...]:
        """Cores for further loads, where there are further engines."""
        return tuple(core for core, _ in self.cores.helpers) if len(self.engine_pids) > 1 else ()

    def folder(self, name: str) -> Path:
        """A folder of this name; the same one each time."""
        folder = self.home / re.sub(r"\W+", "-", name)
        folder.mkdir(exist_ok=True)
        return folder


@dataclass(frozen=True)
class Target:
    """Something that answers on a loopback port.

    Attributes:
        pids: the proxy's own processes, none for the engine itself.
        load, helpers: see Stage.
        exact: its streams have the events that the engine sent, no more and no fewer.
        models: how many models it knows, told apart by the path with `by_path`, else by the body.
    """

    name: str
    port: int
    pids: tuple[int, ...]
    load: tuple[tuple[int, ...], ...]
    exact: bool = True
    models: int = 1
    by_path: bool = False
    helpers: tuple[int, ...] = ()


@dataclass(frozen=True)
class Proxy:
    """A proxy that can be started.

    Attributes:
        start: starts it, waits until it answers, ends it.
        names: what the command line may call it; the first one is its column's.
        version: empty for our own.
        lacking: what a person does to have it; empty where it is there.
        slow: a hundred times slower than others: it gets less to do, and nothing in a quick run that does not name it.
        exact: see `Target`.
        rounds: it takes part in no more rounds than these.
        may_fail: where it answers wrong, it is left out, and the benchmark goes on.
        base: the column that it is compared with; empty for the one that its suite names.
    """

    start: Callable[[Stage, Proxy], AbstractContextManager[Target]]
    names: tuple[str, ...]
    version: str = ""
    lacking: str = ""
    slow: bool = False
    exact: bool = True
    rounds: int = 1000
    may_fail: bool = False
    base: str = ""

    @property
    def name(self) -> str:
        return self.names[0]


@contextmanager
def run_engine(home: Path, cores: Cores) -> Iterator[Stage]:
    """The mock engine, started."""
    with start_engine(home, cores.engine) as (pid, port):
        yield Stage(home, cores, port, (pid,))


@contextmanager
def start_engine(home: Path, core: int, port: int = 0) -> Iterator[tuple[int, int]]:
    """One mock engine on a port that several may share: its pid and the port. Raises BenchError where it has none."""
    log = home / "engine.log"
    process = start([*engine_command(), "--port", str(port)], core, log=log, piped=True)
    try:
        line = process.stdout.readline() if process.stdout is not None else ""
        if not line.strip().isdigit():
            raise BenchError(f"the mock engine does not start:\n{_last_words(log)}")
        yield process.pid, int(line)
    finally:
        end(process)


def engine_command() -> list[str]:
    return [sys.executable, "-m", "tests.bench.backend"]


@contextmanager
def run_direct(stage: Stage, proxy: Proxy) -> Iterator[Target]:
    """No proxy at all."""
    yield Target(proxy.name, stage.engine, (), stage.load)


@contextmanager
def run_program(
    stage: Stage,
    proxy: Proxy,
    argv: Sequence[str],
    port: int,
    *,
    env: Mapping[str, str] | None = None,
    master: bool = False,
    prepare: Callable[[], None] | None = None,
) -> Iterator[Target]:
    """A proxy of one process, or of one that has children; with `master` only these do the work.

    `prepare` is called again and again until it raises no OSError, before the first question.
    """
    log = stage.folder(proxy.name) / "log"
    process = start(argv, stage.cores.proxy, log=log, env=env)
    try:
        wait_until_it_answers(process, port, log, prepare)
        children = tuple(child.pid for child in psutil.Process(process.pid).children(recursive=True))
        pids = children if master else (process.pid, *children)
        yield Target(proxy.name, port, pids, stage.load, proxy.exact, helpers=stage.helpers)
    finally:
        end(process)


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until_it_answers(
    process: subprocess.Popen[str], port: int, log: Path, prepare: Callable[[], None] | None = None
) -> None:
    """Ask for a completion until one comes. Raises BenchError when none does in time."""
    deadline = time.monotonic() + _START_TIMEOUT
    why = "no answer"
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if prepare is not None:
                prepare()
            why = _ask(port)
        except (OSError, http.client.HTTPException) as error:
            why = str(error)
        if not why:
            return
        time.sleep(0.05)
    raise BenchError(f"{process.args!r} does not serve: {why}\n{_last_words(log)}")


def _ask(port: int) -> str:
    """Empty, or what was answered instead of 200."""
    body = make_request().partition(b"\r\n\r\n")[2]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        connection.request("POST", PATH, body, headers)
        response = connection.getresponse()
        text = response.read()
        return "" if response.status == 200 else f"{response.status} {text[:400]!r}"
    finally:
        connection.close()


def _last_words(log: Path) -> str:
    return log.read_text(errors="replace")[-2000:] if log.exists() else ""
