"""What is done to each target, and one window of time of it.

A scenario's clients come, all are answered once, a moment passes, and then the window is cut out: what the proxy's
processes used in it, divided by what the clients saw in it. Whatever happens, a window ends: by its time, by its
number of events, or by the first wrong answer.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

from tests.bench.load import Asker, BenchError, Client, Listener, Tally, connect
from tests.bench.process import cpu_seconds, resident_bytes
from tests.bench.targets import Target
from tests.bench.wire import StreamOrder, make_request

#: Events after which a window ends before its time: ten times what one core can do.
MOST_EVENTS = 2_000_000
#: Seconds beyond the window's own that a measure may take.
_PATIENCE = 30.0


@dataclass(frozen=True)
class Scenario:
    """One kind of load. `order` is set for streams, `size` (bytes of the message) for large requests.

    `key` is what the command line calls it. `weight` stretches the window: streams need longer for as many events.
    """

    key: str
    name: str
    clients: int
    order: StreamOrder | None = None
    size: int = 0
    weight: float = 1.0
    on_direct: bool = False

    def maker(self, tally: Tally) -> Callable[[int], Client]:
        """What makes this scenario's clients, the first being number 0."""
        order = self.order
        if order is not None:
            return lambda number: Listener(tally, order, max(1, order.chunks * (number + 1) // self.clients))
        request = make_request(size=self.size)
        return lambda number: Asker(tally, request)


@dataclass(frozen=True)
class Sample:
    """One window. CPU in seconds; `times` are of answers, or of streams' first chunks, in seconds."""

    seconds: float
    events: int
    reads: int
    proxy_cpu: float
    load_cpu: float
    times: tuple[float, ...]
    resident: int

    @property
    def load_share(self) -> float:
        """How busy load and mock engine kept their core: near 1 they are the bottleneck, and not the proxy."""
        return self.load_cpu / self.seconds

    @property
    def cost(self) -> float:
        """CPU microseconds of the proxy for one event."""
        return self.proxy_cpu / self.events * 1e6


#: A token each 20 ms is what one engine gives to each of many streams; 200 are an answer.
_PACED = StreamOrder(chunks=200, pace=20)
_UNPACED = StreamOrder(chunks=1000, pace=0)

SMALL = Scenario("small", "small requests", clients=32)
ALONE = Scenario("latency", "one client", clients=1, on_direct=True)
LARGE = Scenario("large-64k", "64 KB requests", clients=16, size=64 << 10)
STREAMS_64 = Scenario("streams-64", "64 streams", clients=64, order=_PACED, weight=2)
STREAMS_256 = Scenario("streams-256", "256 streams", clients=256, order=_PACED, weight=2, on_direct=True)
FLOOD_64 = Scenario("flood", "64 streams, unpaced", clients=64, order=_UNPACED)
SCENARIOS = (SMALL, ALONE, LARGE, STREAMS_64, STREAMS_256, FLOOD_64)


@dataclass(frozen=True)
class Effort:
    """How long it all takes: rounds, seconds of a window of weight 1, and seconds before it."""

    rounds: int
    seconds: float
    warm: float


FULL = Effort(rounds=5, seconds=0.7, warm=0.25)
QUICK = Effort(rounds=1, seconds=0.15, warm=0.05)


async def measure(scenario: Scenario, target: Target, engine: int, effort: Effort) -> Sample:
    """One window of a scenario on a target. Raises BenchError on the first wrong answer, or when nothing moves."""
    tally = Tally(scenario.clients, MOST_EVENTS)
    clients: list[Client] = []
    window = asyncio.create_task(_window(scenario, target, engine, effort, tally, clients))
    try:
        async with asyncio.timeout(effort.seconds * scenario.weight + effort.warm + _PATIENCE):
            await asyncio.wait((window, tally.failed), return_when=asyncio.FIRST_COMPLETED)
        if tally.failed.done():
            tally.failed.result()
        return window.result()
    except BenchError as error:
        raise BenchError(f"{target.name}, {scenario.name}: {error}") from None
    except TimeoutError:
        raise BenchError(f"{target.name}, {scenario.name}: only {tally.begun} clients were answered") from None
    finally:
        window.cancel()
        tally.failed.cancel()
        for client in clients:
            client.close()
        await asyncio.sleep(0.05)  # let everybody see that the clients are gone


async def _window(
    scenario: Scenario, target: Target, engine: int, effort: Effort, tally: Tally, clients: list[Client]
) -> Sample:
    clients += await connect(target.port, scenario.maker(tally), scenario.clients)
    for client in clients:
        client.start()
    await tally.all_begun.wait()
    await asyncio.sleep(effort.warm)
    load = (os.getpid(), engine)
    tally.forget_times()
    events, reads = tally.events, tally.reads
    began, proxy_cpu, load_cpu = perf_counter(), cpu_seconds(target.pids), cpu_seconds(load)
    try:
        async with asyncio.timeout(effort.seconds * scenario.weight):
            await tally.full.wait()
    except TimeoutError:
        await tally.timed.wait()  # the usual end, but on a machine that is too busy to answer once in that time
    proxy_cpu = cpu_seconds(target.pids) - proxy_cpu
    return Sample(
        seconds=perf_counter() - began,
        events=tally.events - events,
        reads=tally.reads - reads,
        proxy_cpu=proxy_cpu,
        load_cpu=cpu_seconds(load) - load_cpu,
        times=tuple(tally.times),
        resident=resident_bytes(target.pids),
    )
