"""Rows about streams: who leaves, who stalls, how many there are, and what their end looks like."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import replace
from time import perf_counter

from tests.torture.load import Outcome, ask_once, count, open_stream, percentile, run_stream
from tests.torture.rival import haproxy, haproxy_program
from tests.torture.stage import MIB, Effort, Result, Row, Stage, stage, until
from tests.torture.wire import Kind, Order, request

#: What HAProxy needed for the first byte of 2,000 streams on such a machine, in seconds, times 1.2.
_FIRST_BYTE = 1.08


async def _leave(effort: Effort) -> Result:
    clients = effort.of(200, 20)
    async with stage() as made:
        streams = await asyncio.gather(*(open_stream(made.port, Order(10_000, 50, seed)) for seed in range(clients)))
        await asyncio.gather(*(stream.begun.wait() for stream in streams))
        before = (await made.engines[0].seen())["open"]
        for number, stream in enumerate(streams):
            stream.leave(reset=number % 2 == 0)

        async def none_left() -> bool:
            return bool((await made.engines[0].seen())["open"] == 0)

        took = await until(none_left, 5)
        left = (await made.engines[0].seen())["open"]
    passed = before == clients and took is not None and took <= effort.within(1)
    return Result(f"{left} of {before} left after {took if took is not None else 5:.2f} s", passed)


async def _stalled(effort: Effort) -> Result:
    size, clients = effort.of(100, 30) * MIB, 5
    async with stage() as made:
        before = made.rss()
        socks = [socket.create_connection(("127.0.0.1", made.port)) for _ in range(clients)]
        for sock in socks:
            sock.sendall(request(f"/v1/chat/completions?bytes={size}"))
        settled = -1
        while settled != (sent := (await made.engines[0].seen())["bytes"]) or not sent:
            settled = sent
            await asyncio.sleep(0.5)
        growth = made.rss() - before
        got = await asyncio.to_thread(_read_all, socks[0], size)
        for sock in socks:
            sock.close()
    figure = f"{growth / MIB:.1f} MiB, the engine held at {sent / MIB:.0f} of {clients * size / MIB:.0f} MiB"
    return Result(figure, growth <= 16 * MIB and sent < clients * size and got)


def _read_all(sock: socket.socket, size: int) -> bool:
    """Whether a stalled reader gets everything when it reads on."""
    sock.settimeout(30)
    got = 0
    while got < size and (data := sock.recv(1 << 20)):
        got += len(data)
    return got >= size


async def _at_once(effort: Effort) -> Result:
    events = effort.of(50, 10)
    async with stage() as made:
        ends = await asyncio.gather(*(run_stream(made.port, Order(events + 1, 100, seed)) for seed in range(40)))
    slowest = max(end.total for end in ends)
    whole = count(ends, Kind.WHOLE)
    return Result(f"{slowest:.2f} s, {whole} of 40 whole", whole == 40 and slowest <= effort.within(events / 10 * 1.12))


async def _many(effort: Effort) -> Result:
    streams, order = effort.of(2000, 100), Order(effort.of(10, 3), effort.of(1000, 300))
    async with stage() as made:
        bound, told = await _theirs(made.engines[0].port, streams, order)
        cpu, before = made.cpu(), made.rss()
        running = _start(made.port, streams, order)
        most = await _highest_rss(made, running)
        ends = [await task for task in running]
        cpu = made.cpu() - cpu
    whole = count(ends, Kind.WHOLE)
    p99 = percentile([end.first for end in ends], 0.99)
    figure = f"{whole} of {streams} whole, first byte p99 {p99:.2f} s{told}, "
    figure += f"{most / MIB:.0f} MiB ({before / MIB:.0f} before), {cpu:.2f} CPU-s"
    return Result(figure, whole == streams and p99 <= effort.within(bound) and most <= 60 * MIB)


def _start(port: int, streams: int, order: Order) -> list[asyncio.Task[Outcome]]:
    return [asyncio.create_task(run_stream(port, replace(order, seed=seed))) for seed in range(streams)]


async def _theirs(engine: int, streams: int, order: Order) -> tuple[float, str]:
    """The bound of the first byte in seconds, and where it is from: HAProxy here and now, else what it once needed."""
    program = haproxy_program()
    if program is None:
        return _FIRST_BYTE, ""
    async with haproxy(program, engine) as rival:
        ends = await asyncio.gather(*_start(rival.port, streams, order))
    p99 = percentile([end.first for end in ends], 0.99)
    return max(_FIRST_BYTE, 1.2 * p99), f" (HAProxy {p99:.2f} s)"


async def _highest_rss(made: Stage, running: list[asyncio.Task[Outcome]]) -> int:
    most = made.rss()
    while not all(task.done() for task in running):
        await asyncio.wait(running, timeout=0.25, return_when=asyncio.ALL_COMPLETED)
        most = max(most, made.rss())
    return most


async def _killed(effort: Effort) -> Result:
    async with stage(2) as made:
        streams = await asyncio.gather(*(open_stream(made.port, Order(10_000, 20, seed)) for seed in range(30)))
        await asyncio.gather(*(stream.begun.wait() for stream in streams))
        began = perf_counter()
        made.engines[0].kill()
        ends = await asyncio.gather(*(asyncio.wait_for(stream.outcome, 10) for stream in streams))
        took = perf_counter() - began
        refused = await ask_once(made.port)
        other = await ask_once(made.port, request(model="beta"))
        wrong = made.healthy()
    cut = count(ends, Kind.CUT)
    figure = (
        f"{cut} of 30 cut after {took:.2f} s; then {refused.status} with Retry-After in {refused.seconds * 1000:.1f} ms"
    )
    passed = (
        cut == 30
        and refused.status == 503
        and refused.retry_after is not None
        and refused.seconds <= effort.within(0.05)
    )
    return Result(figure + wrong, passed and other.status == 200 and not wrong)


ROWS = (
    Row("leave", "200 clients leave in mid-stream", "0 streams left at the engine after 1 s", _leave),
    Row("stalled", "5 stalled readers of 100 MiB", "the worker grows by 16 MiB at the most", _stalled),
    Row("at-once", "40 streams of 5 s at once", "5.6 s", _at_once),
    Row(
        "many",
        "2,000 streams of 10 tokens at 1/s",
        "all whole, ≤ 60 MiB, first byte p99 ≤ HAProxy's and a fifth (0.9 s elsewhere)",
        _many,
    ),
    Row("killed", "an engine with 30 streams is killed", "30 visibly cut; next 503 with Retry-After ≤ 50 ms", _killed),
)
