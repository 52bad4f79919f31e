"""What is done to each target, and one window of time of it.

A scenario's clients come, all are answered once, a moment passes, and then the window is cut out: what the proxy's
processes used in it, divided by what the clients saw in it. Whatever happens, a window ends: by its time, by its
number of events, or by the first wrong answer. Crowds are measured from their coming to their end instead.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter

from tests.bench.crew import Helper, run_helpers
from tests.bench.load import Asker, BenchError, Client, Idler, Listener, Sharer, Tally, connect
from tests.bench.process import cpu_seconds, resident_bytes
from tests.bench.targets import Target
from tests.bench.wire import StreamOrder, make_request, model_names

#: Events after which a window ends before its time: ten times what one core can do.
MOST_EVENTS = 2_000_000
#: Seconds beyond its own that a measure may take.
_PATIENCE = 45.0
_BATCH = 200
#: Seconds between two looks at a proxy that is coming to rest, and how often it is looked at.
_PAUSE = 0.05
_MOST_PAUSES = 200


@dataclass(frozen=True)
class Sample:
    """One measure of one scenario on one target.

    Attributes:
        seconds: the length of the window.
        events: answers, or chunks of streams, that came in it; `reads` is how many reads of a socket that took.
        proxy_cpu: CPU seconds of the proxy in it; `load_cpu` of load generator and mock engine, the busier of the two
            where each has a core of its own.
        times: seconds until the answer, or until a stream's first chunk.
        ahead: chunks of other streams that came to the clients in that time.
        resident: bytes of memory of the proxy while its clients were there, `rested` before they came.
        clients: how many there were.
    """

    seconds: float
    events: int
    reads: int
    proxy_cpu: float
    load_cpu: float
    times: tuple[float, ...]
    ahead: tuple[int, ...]
    resident: int
    rested: int
    clients: int

    @property
    def load_share(self) -> float:
        """How busy load and mock engine kept their core: near 1 they are the bottleneck, and not the proxy."""
        return self.load_cpu / self.seconds

    @property
    def cost(self) -> float:
        """CPU microseconds of the proxy for one event."""
        return self.proxy_cpu / self.events * 1e6


@dataclass(frozen=True)
class Effort:
    """How long it all takes: rounds, seconds of a window of weight 1, and seconds before it.

    `crowd`: the streams and the idle connections of a crowd are divided by it.
    """

    rounds: int
    seconds: float
    warm: float
    crowd: int = 1


FULL = Effort(rounds=5, seconds=0.7, warm=0.25)
QUICK = Effort(rounds=1, seconds=0.15, warm=0.05, crowd=20)


@dataclass(frozen=True)
class Scenario:
    """One kind of load. `order` is set for streams, `size` (bytes of the message) for large requests.

    Attributes:
        key: what the command line calls it.
        weight: stretches the window: streams need longer for as many events.
        on_direct: measured without a proxy too, for what a proxy adds.
        heavy: too much for a proxy that is a hundred times slower than others.
        spread: clients ask for every model that the proxy knows in turn, instead of for the first alone.
        at_once: clients that ask at a time, where not all do: see load.Sharer.
        rest: seconds: see load.Listener.
        idle: connections that are there and say nothing.
        helped: further loads with as many clients each ask too, where the target has cores for them.
    """

    key: str
    name: str
    clients: int
    order: StreamOrder | None = None
    size: int = 0
    weight: float = 1.0
    on_direct: bool = False
    heavy: bool = True
    spread: bool = False
    at_once: int = 0
    rest: float = 0.0
    idle: int = 0
    is_crowd: bool = False
    helped: bool = False

    def maker(self, tally: Tally, target: Target) -> Callable[[int], Client]:
        """What makes this scenario's clients, the first being number 0."""
        order, exact = self.order, target.exact
        if order is not None and self.is_crowd:
            return lambda number: Listener(tally, order, order.chunks, exact=exact, again=False)
        if order is not None:
            share = order.chunks / self.clients
            rest = self.rest
            return lambda number: Listener(tally, order, max(1, int(share * (number + 1))), exact=exact, rest=rest)
        names = model_names(target.models if self.spread else 1)
        requests = [make_request(size=self.size, model=name, by_path=target.by_path) for name in names]
        if self.at_once:
            resting: deque[Sharer] = deque()
            return lambda number: Sharer(tally, requests, resting, begins=number < self.at_once)
        return lambda number: Asker(tally, requests, number, self.clients)


@dataclass
class _Run:
    """One measure while it is made."""

    scenario: Scenario
    target: Target
    effort: Effort
    tally: Tally
    clients: list[Client] = field(default_factory=list)
    helpers: Sequence[Helper] = ()

    async def come(self, make: Callable[[int], Client], count: int) -> None:
        """Clients connect and ask for the first time."""
        came = await connect(self.target.port, make, count)
        self.clients += came
        for client in came:
            client.start()

    def make_clients(self) -> Callable[[int], Client]:
        return self.scenario.maker(self.tally, self.target)


class _Meter:
    """Everything that is counted, from now on."""

    def __init__(self, run: _Run) -> None:
        self._tally, self._pids, self._helpers = run.tally, run.target.pids, run.helpers
        self._load = (*run.target.load, *((helper.pid,) for helper in run.helpers))
        self.rested = resident_bytes(self._pids)
        self._events, self._reads = self._count(), run.tally.reads
        self._proxy_cpu = cpu_seconds(self._pids)
        self._load_cpu = [cpu_seconds(pids) for pids in self._load]
        self._began = perf_counter()

    def _count(self) -> int:
        return self._tally.events + sum(helper.count() for helper in self._helpers)

    def read(self, *, clients: int, rested: int | None = None, resident: int | None = None) -> Sample:
        seconds = perf_counter() - self._began
        used = [cpu_seconds(pids) - before for pids, before in zip(self._load, self._load_cpu, strict=True)]
        return Sample(
            seconds=seconds,
            events=self._count() - self._events,
            reads=self._tally.reads - self._reads,
            proxy_cpu=cpu_seconds(self._pids) - self._proxy_cpu,
            load_cpu=max(used),
            times=tuple(self._tally.times),
            ahead=tuple(self._tally.ahead),
            resident=resident_bytes(self._pids) if resident is None else resident,
            rested=self.rested if rested is None else rested,
            clients=clients,
        )


async def measure(scenario: Scenario, target: Target, effort: Effort) -> Sample:
    """One measure of a scenario on a target. Raises BenchError on the first wrong answer, or when nothing moves."""
    tally = Tally(scenario.clients, MOST_EVENTS)
    run = _Run(scenario, target, effort, tally)
    seconds = effort.seconds * scenario.weight + effort.warm + _PATIENCE
    work = asyncio.create_task(_way(scenario)(run))
    try:
        async with asyncio.timeout(seconds):
            await asyncio.wait((work, tally.failed), return_when=asyncio.FIRST_COMPLETED)
        if tally.failed.done():
            tally.failed.result()
        return work.result()
    except (BenchError, OSError) as error:
        raise BenchError(f"{target.name}, {scenario.name}: {error}") from None
    except TimeoutError:
        counted = f"{tally.begun} clients were answered, {tally.ended} had all that they wanted"
        raise BenchError(f"{target.name}, {scenario.name}: after {seconds:.0f} s only {counted}") from None
    finally:
        work.cancel()
        tally.failed.cancel()
        for client in run.clients:
            client.close()
        await _settle(target)


async def _settle(target: Target) -> None:
    """Wait until the proxy rests: what it still has to do for clients that left would fall into the next measure."""
    before = cpu_seconds(target.pids)
    for _ in range(_MOST_PAUSES):
        await asyncio.sleep(_PAUSE)
        now = cpu_seconds(target.pids)
        if now - before < _PAUSE / 10:
            return
        before = now


def _way(scenario: Scenario) -> Callable[[_Run], Coroutine[None, None, Sample]]:
    if scenario.idle:
        return _idle
    return _crowd if scenario.is_crowd else _window


async def _window(run: _Run) -> Sample:
    """The usual one: clients that ask for ever, and a window of it."""
    rested = resident_bytes(run.target.pids)
    await run.come(run.make_clients(), run.scenario.clients)
    await run.tally.all_begun.wait()
    if run.scenario.spread:  # every model has connections, which were closed since the last round
        await run.tally.count_to(2 * max(run.target.models, run.scenario.clients))
    with run_helpers(run.target, run.scenario.clients) if run.scenario.helped else nullcontext(()) as run.helpers:
        await asyncio.sleep(run.effort.warm)
        return await _cut(run, rested=rested, clients=run.scenario.clients)


async def _cut(run: _Run, *, rested: int, clients: int) -> Sample:
    tally = run.tally
    tally.forget_times()
    meter = _Meter(run)
    try:
        async with asyncio.timeout(run.effort.seconds * run.scenario.weight):
            await tally.full.wait()
    except TimeoutError:
        await tally.timed.wait()  # the usual end, but on a machine that is too busy to answer once in that time
    return meter.read(clients=clients, rested=rested)


async def _crowd(run: _Run) -> Sample:
    """Streams that all begin at once; from the first connection to the end of the last stream."""
    meter = _Meter(run)
    await run.come(run.make_clients(), run.scenario.clients)
    await run.tally.all_begun.wait()
    resident = resident_bytes(run.target.pids)
    await run.tally.all_ended.wait()
    return meter.read(clients=run.scenario.clients, resident=max(resident, resident_bytes(run.target.pids)))


async def _idle(run: _Run) -> Sample:
    """A few clients among many kept connections, each of which has been used once."""
    rested = resident_bytes(run.target.pids)
    for begin in range(0, run.scenario.idle, _BATCH):
        count = min(_BATCH, run.scenario.idle - begin)
        tally = Tally(count, MOST_EVENTS, run.tally.failed)
        await run.come(partial(_make_idler, tally), count)
        await tally.all_begun.wait()
    await run.come(run.make_clients(), run.scenario.clients)
    await run.tally.all_begun.wait()
    await asyncio.sleep(run.effort.warm)
    return await _cut(run, rested=rested, clients=run.scenario.idle)


def _make_idler(tally: Tally, _number: int) -> Client:
    return Idler(tally)
