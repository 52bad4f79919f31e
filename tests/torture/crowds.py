"""Rows about connections: too many for the descriptors, idle ones by the thousand, slow ones that never finish."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from time import perf_counter
from typing import cast

from tests.torture.load import Outcome, Probe, ask_once, count, run_stream
from tests.torture.rival import haproxy, haproxy_program
from tests.torture.stage import MIB, Effort, Result, Row, Stage, stage, until
from tests.torture.wire import Kind, Order
from vllm_circus.config.models import Limits

#: Connections that are opened at a time: a burst longer than the backlog would measure the kernel's patience.
_BURST = 250
_HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Idler(asyncio.Protocol):
    """A connection that sends what it was given, and keeps what came."""

    def __init__(self, first: bytes) -> None:
        self._first = first
        self._began = perf_counter()
        self.raw = b""
        self.answered = asyncio.Event()
        self.ended: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        if self._first:
            self.transport.write(self._first)

    def data_received(self, data: bytes) -> None:
        self.raw += data
        self.answered.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.answered.set()
        if not self.ended.done():
            self.ended.set_result(perf_counter() - self._began)


async def _open(port: int, number: int, first: bytes = b"") -> list[Idler]:
    idlers = [Idler(first) for _ in range(number)]
    loop = asyncio.get_running_loop()
    for at in range(0, number, _BURST):
        burst = idlers[at : at + _BURST]
        await asyncio.gather(*(loop.create_connection(lambda each=each: each, "127.0.0.1", port) for each in burst))  # type: ignore[misc]  # mypy knows no defaults of lambdas
        if first:
            await asyncio.gather(*(each.answered.wait() for each in burst))
    return idlers


def _close(idlers: Iterable[Idler]) -> None:
    for idler in idlers:
        idler.transport.abort()


async def _out_of_files(effort: Effort) -> Result:
    """Streams, so that every client needs a descriptor at the engine as well."""
    seconds = effort.of(5, 1)
    async with stage(nofile=256) as made:
        running = [asyncio.create_task(run_stream(made.port, Order(10_000, 500, seed))) for seed in range(400)]

        async def settled() -> bool:
            before = made.files()
            await asyncio.sleep(0.5)
            return before == made.files() > 100

        await until(settled, 10)
        files, cpu, lines = made.files(), made.cpu(), made.log_lines()
        await asyncio.sleep(seconds)
        cpu, lines = (made.cpu() - cpu) / seconds, made.log_lines() - lines
        for task in running:
            task.cancel()
        took = await until(_answers(made), 10)
        wrong = made.healthy()
    figure = f"{cpu:.1%} CPU and {lines / seconds:.1f} log lines/s with {files} of 256 open; "
    figure += f"recovered after {took:.2f} s" if took is not None else "never recovered"
    return Result(figure + wrong, cpu < 0.1 and lines <= 10 * seconds and took is not None and not wrong)


def _answers(made: Stage) -> Callable[[], Awaitable[bool]]:
    async def ask() -> bool:
        async def one() -> bool:
            return (await ask_once(made.port)).status == 200

        try:
            return await asyncio.wait_for(one(), 1)
        except TimeoutError:
            return False

    return ask


async def _slow(effort: Effort) -> Result:
    """Each slow one sends a byte of its header a second; the idle ones send nothing."""
    idle, slow = effort.of(5000, 100), effort.of(1000, 20)
    limits = Limits(header_timeout=1.0) if effort.quick else Limits()
    async with stage(limits=limits) as made, Probe(made.port) as probe:
        idlers = await _open(made.port, idle)
        drips = await _open(made.port, slow)
        dripping = asyncio.create_task(_drip(drips))
        try:
            async with asyncio.timeout(30):
                ends = [await each.ended for each in (*idlers, *drips)]
        finally:
            dripping.cancel()
        wrong = made.healthy()
        p99, lost = probe.p99(), probe.lost
    timed_out = sum(each.raw.startswith(b"HTTP/1.1 408 ") for each in drips)
    said = sum(bool(each.raw) for each in idlers)
    figure = (
        f"probe p99 {p99:.1f} ms, {lost} lost; {timed_out} of {slow} got 408; the last closed after {max(ends):.1f} s"
    )
    passed = p99 <= effort.within(50) and not lost and timed_out == slow and not said and max(ends) <= 20
    return Result(figure + wrong, passed and not wrong)


async def _drip(idlers: list[Idler]) -> None:
    data = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nX-Slow: " + b"a" * 60
    for byte in data:
        for idler in idlers:
            if not idler.transport.is_closing():
                idler.transport.write(bytes([byte]))
        await asyncio.sleep(1)


async def _crowd(effort: Effort) -> Result:
    """Idle keep-alive connections that were each answered once, and streams beside them."""
    idle, live = effort.of(10_000, 200), effort.of(2000, 50)
    events, pace = effort.of(15, 3), effort.of(1000, 300)
    async with stage(limits=Limits(max_connections=idle + live + 100)) as made:
        theirs = await _beside(made.engines[0].port, idle, live, events, pace)
        bare = made.rss()
        idlers = await _open(made.port, idle, _HEALTH)
        with_idle = made.rss()
        async with Probe(made.port) as probe:
            ends, most = await _stream(made.port, live, events, pace, made.rss)
            p99, lost = probe.p99(), probe.lost
        gone = sum(each.ended.done() for each in idlers)
        _close(idlers)
        wrong = made.healthy()
    whole = count(ends, Kind.WHOLE)
    each_idle, each_live = (with_idle - bare) / idle / 1024, (most - with_idle) / live / 1024
    figure = f"{most / MIB:.0f} MiB: {bare / MIB:.0f} + {each_idle:.1f} KiB an idle one + {each_live:.1f} KiB a stream"
    figure += f"; probe p99 {p99:.1f} ms{theirs}, {lost} lost; {whole} of {live} streams whole, {gone} of {idle} closed"
    passed = p99 <= effort.within(50) and whole == live and not lost and not gone and most <= 160 * MIB
    return Result(figure + wrong, passed and not wrong)


async def _beside(engine: int, idle: int, live: int, events: int, pace: int) -> str:
    """What the same crowd does to HAProxy, or nothing where there is none."""
    program = haproxy_program()
    if program is None:
        return ""
    async with haproxy(program, engine) as rival:
        idlers = await _open(rival.port, idle, _HEALTH)
        async with Probe(rival.port) as probe:
            _, most = await _stream(rival.port, live, events, pace, rival.rss)
        _close(idlers)
    return f" (HAProxy {most / MIB:.0f} MiB, {probe.p99():.1f} ms)"


async def _stream(port: int, live: int, events: int, pace: int, rss: Callable[[], int]) -> tuple[list[Outcome], int]:
    """Streams begun over one second; their ends, and the most memory meanwhile."""
    running = []
    for seed in range(live):
        running.append(asyncio.create_task(run_stream(port, Order(events, pace, seed))))
        if seed % 50 == 0:
            await asyncio.sleep(50 / live)
    most = rss()
    while not all(task.done() for task in running):
        await asyncio.wait(running, timeout=0.25)
        most = max(most, rss())
    return [await task for task in running], most


ROWS = (
    Row(
        "out-of-files",
        "400 streams where 256 files may be open",
        "< 10 % CPU, ≤ 10 log lines/s, recovers",
        _out_of_files,
    ),
    Row(
        "slow",
        "5,000 silent and 1,000 slow connections",
        "probe p99 ≤ 50 ms; 408 and closed ≤ 20 s",
        _slow,
    ),
    Row(
        "crowd",
        "10,000 idle connections and 2,000 streams, one worker",
        "probe p99 ≤ 50 ms, all whole, ≤ 160 MiB",
        _crowd,
    ),
)
