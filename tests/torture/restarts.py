"""The rows of restarts: a real set, whose proxy or whose engines are replaced while it is used.

Rules: circus does what an operator would have it do: `incr` starts the new worker on the inherited socket, and once
that serves, `decr` ends the oldest, which drains. The engines of a model are replaced by `restart`. A request is lost
if it is not answered 200, on whatever connection.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

from tests.e2e.conftest import Circus
from tests.torture.load import Answer, Asker, Outcome, ask_once, count, percentile, run_stream
from tests.torture.stage import ROOT, Effort, Result, Row, until
from tests.torture.wire import Kind, Order
from vllm_circus.paths import Instance, find_instance
from vllm_circus.supervise.client import Client

_RATE = 200
_STREAMS = 20
_MANY_STREAMS = 50
_WATCHER = "proxy"


@dataclass
class Load:
    """What comes of the requests and streams."""

    answers: list[Answer] = field(default_factory=list)
    ends: list[Outcome] = field(default_factory=list)
    over: bool = False

    @property
    def all_well(self) -> bool:
        return all(answer.status == 200 for answer in self.answers) and count(self.ends, Kind.WHOLE) == len(self.ends)

    @property
    def figure(self) -> str:
        lost = [answer.status for answer in self.answers if answer.status != 200]
        p99 = percentile([answer.seconds * 1000 for answer in self.answers], 0.99)
        kinds = {outcome.kind.name for outcome in self.ends} - {"WHOLE"}
        text = f"{len(lost)} of {len(self.answers):,} requests lost, {count(self.ends, Kind.WHOLE)} of "
        text += f"{len(self.ends)} streams whole; p99 {p99:.0f} ms"
        text += f"; {sorted(set(lost))}" if lost else ""
        return text + (f"; {sorted(kinds)}" if kinds else "")


@dataclass(frozen=True)
class Set:
    """A running set with one model."""

    instance: Instance
    port: int
    circus: Circus

    def engines(self) -> set[int]:
        return {model["pid"] for model in self.circus.status()["models"]}

    def workers(self) -> list[int]:
        with Client(self.instance.control) as client:
            return client.pids(_WATCHER)

    def more(self, command: str) -> None:
        """`incr` or `decr` by one worker."""
        with Client(self.instance.control, timeout=30) as client:
            client.call(command, name=_WATCHER, nb=1)

    def log(self) -> str:
        return self.instance.log("proxy").read_text()


@asynccontextmanager
async def _running_set(replicas: int = 1) -> AsyncIterator[Set]:
    home = Path(tempfile.mkdtemp(prefix="vct", dir="/tmp"))
    circus = Circus(home)
    try:
        file, port = _models_file(home, replicas)
        await asyncio.to_thread(circus, "up", str(file), "-d", "--wait")
        yield Set(find_instance("default", circus.environ), port, circus)
    finally:
        await asyncio.to_thread(circus.end)
        shutil.rmtree(home, ignore_errors=True)


def _models_file(home: Path, replicas: int) -> tuple[Path, int]:
    """One model, played by the torture's own engine."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        port: int = one.getsockname()[1]
    start = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from tests.torture.engine import main; main()"
    command = [sys.executable, "-c", start, "--port", "{port}", "--name", "{name}"]
    model = {"name": "alpha", "model": "alpha", "replicas": replicas, "engine": {"command": command}}
    file = home / "models.yaml"
    file.write_text(json.dumps({"proxy": {"host": "127.0.0.1", "port": port}, "models": [model]}))
    return file, port


async def _restarts(effort: Effort) -> Result:
    async with _running_set() as circus, _load(circus.port, effort.of(50, 10), _STREAMS) as load:
        took = [await _replace(circus) for _ in range(effort.of(10, 1))]
        workers = await asyncio.to_thread(circus.workers)
        wrong = ", a traceback is in the log" if "Traceback" in circus.log() else ""
    figure = f"{load.figure}; {len(took)} restarts of {max(took):.1f} s at the most"
    return Result(figure + wrong, load.all_well and len(workers) == 1 and not wrong)


async def _replicas(effort: Effort) -> Result:
    async with _running_set(2) as circus, _load(circus.port, effort.of(50, 10), effort.of(_MANY_STREAMS, 5)) as load:
        before = await asyncio.to_thread(circus.engines)
        began = perf_counter()
        await asyncio.to_thread(circus.circus, "restart", "alpha")
        took = perf_counter() - began
        after = await asyncio.to_thread(circus.engines)
    fresh = not before & after and len(after) == len(before)
    figure = f"{load.figure}; the restart took {took:.1f} s"
    return Result(figure if fresh else f"{figure}; not restarted", load.all_well and fresh)


async def _replace(circus: Set) -> float:
    """Start a new worker, end the old one; seconds until it is gone."""
    began = perf_counter()
    (old,) = await asyncio.to_thread(circus.workers)
    await asyncio.to_thread(circus.more, "incr")

    async def serves() -> bool:
        new = set(await asyncio.to_thread(circus.workers)) - {old}
        return any(f"worker {pid} serves" in circus.log() for pid in new)

    async def alone() -> bool:
        return not _alive(old) and len(await asyncio.to_thread(circus.workers)) == 1

    if await until(serves, 20) is None:
        raise TimeoutError("the new worker does not serve")
    await asyncio.to_thread(circus.more, "decr")
    if await until(alone, 60) is None:
        raise TimeoutError("the old worker does not end")
    return perf_counter() - began


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@asynccontextmanager
async def _load(port: int, pace: int, streams: int) -> AsyncIterator[Load]:
    """Requests and streams, from a second before what is done meanwhile until a second after it."""
    load = Load()
    working = asyncio.create_task(_work(port, load, pace, streams))
    await asyncio.sleep(1)
    yield load
    await asyncio.sleep(1)
    load.over = True
    await working


async def _work(port: int, load: Load, pace: int, streams: int) -> None:
    """Requests at a steady rate, every second one on a connection of its own, and streams beside them."""
    kept = [Asker(port) for _ in range(40)]
    free: asyncio.Queue[Asker] = asyncio.Queue()
    for asker in kept:
        free.put_nowait(asker)
    streaming = [asyncio.create_task(_stream(port, load, pace, seed)) for seed in range(streams)]
    tasks: set[asyncio.Task[None]] = set()
    began = perf_counter()
    for number in itertools.count():
        if load.over:
            break
        await asyncio.sleep(max(0.0, began + number / _RATE - perf_counter()))
        task = asyncio.create_task(_request(port, load, free if number % 2 else None))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*streaming, *tasks)
    for asker in kept:
        asker.close()


async def _request(port: int, load: Load, free: asyncio.Queue[Asker] | None) -> None:
    if free is None:
        load.answers.append(await ask_once(port))
        return
    asker = await free.get()
    load.answers.append(await asker.ask())
    free.put_nowait(asker)


async def _stream(port: int, load: Load, pace: int, seed: int) -> None:
    while not load.over:
        load.ends.append(await run_stream(port, Order(40 + seed, pace, seed)))


ROWS = (
    Row("restarts", "10 restarts of the proxy at 200 requests/s", "0 lost, all streams whole", _restarts),
    Row(
        "replicas",
        "restart of a model with two engines at 200 requests/s and 50 streams",
        "0 lost, all streams whole",
        _replicas,
    ),
)
