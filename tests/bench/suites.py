"""What is compared with what: each suite is a table of its own, with the proxies, the loads and the lines in it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tests.bench.circus import CIRCUS, CIRCUS_FULL, Setting, circus
from tests.bench.measures import Effort, Sample, Scenario
from tests.bench.notes import FIRST_NOTE, MODELS_NOTE
from tests.bench.pooled import percentile
from tests.bench.process import find_cores, threads_of
from tests.bench.ration import find_groups
from tests.bench.rivals import NGINX, nginx, rivals
from tests.bench.targets import DIRECT, Proxy, run_direct
from tests.bench.wire import StreamOrder

#: A token each 20 ms is what one engine gives to each of many streams; 200 are an answer.
_PACED = StreamOrder(chunks=200, pace=20)
_UNPACED = StreamOrder(chunks=1000, pace=0)
#: Short answers: more first chunks in the same time.
_SHORT = StreamOrder(chunks=50, pace=20)
_SLOW = StreamOrder(chunks=10, pace=1000)

SMALL = Scenario("small", "small requests", clients=32, heavy=False)
ALONE = Scenario("latency", "one client", clients=1, on_direct=True, heavy=False)
LARGE = Scenario("large-64k", "64 KB requests", clients=16, size=64 << 10, heavy=False)
HUGE = Scenario("large-8m", "8 MB requests", clients=4, size=8 << 20, weight=1.5)
STREAMS_64 = Scenario("streams-64", "64 streams", clients=64, order=_PACED, weight=2, heavy=False)
STREAMS_256 = Scenario("streams-256", "256 streams", clients=256, order=_PACED, weight=3)
FIRST = Scenario("first", "256 streams, in step", clients=256, order=_SHORT, on_direct=True)
FIRST_SPREAD = replace(FIRST, key="first-spread", name="256 streams, spread", rest=_SHORT.pace / 1000)
FLOOD_64 = Scenario("flood", "64 streams, unpaced", clients=64, order=_UNPACED)
CROWD = Scenario("crowd", "2,000 streams", clients=2000, order=_SLOW, is_crowd=True)
IDLE = Scenario("idle", "10,000 idle connections", clients=1, idle=10_000, weight=2)
WORKERS = Scenario("workers", "workers", clients=64, weight=1.5, helped=True)
RATIONED = Scenario("workers-rationed", "workers with a part of a core", clients=64, weight=3)
MODELS = Scenario("models", "models", clients=32)
MODELS_SHARED = Scenario("models-shared", "many clients in turn", clients=1000, at_once=32)
MODELS_SPREAD = Scenario("models-spread", "models in turn", clients=32, spread=True)

#: Of a core's time, for each worker: load and engine keep up with two of them.
_RATION = 0.25
#: Open files that are not connections of the crowd.
_SPARE_FILES = 512


@dataclass(frozen=True)
class Pool:
    """A percentile of many values of all rounds together, with its interval; `beyond` the same of the suite's base."""

    values: Callable[[Sample], Sequence[float]]
    share: float
    beyond: bool = False


@dataclass(frozen=True)
class Row:
    """A line of a table.

    Attributes:
        title: `{n}` in it is the number of clients.
        value: from one sample, or from those of all rounds.
        added: proxies show what they add to the direct way in the same round.
        ratio: whether a quotient says something.
    """

    title: str
    scenario: Scenario
    value: Callable[[Sample], float] | Pool
    added: bool = False
    digits: int = 1
    ratio: bool = True


@dataclass(frozen=True)
class Suite:
    """A table.

    Attributes:
        base: the proxy that others are compared with.
        fresh: each measure has a proxy that was just started: memory is told apart from what was there before.
        rounds: no more of them than these, and `times` as many as are asked for, where that is not one.
        note: what a reader has to know, below the table.
        helped: there are further engines and loads where there are cores for them.
        ration: the part of a core's time (0 to 1) that each process of a proxy has, all on one core; 0: all it can get.
    """

    key: str
    title: str
    proxies: tuple[Proxy, ...]
    scenarios: tuple[Scenario, ...]
    rows: tuple[Row, ...]
    base: str = NGINX
    fresh: bool = False
    rounds: int = 1000
    times: int = 1
    note: str = ""
    helped: bool = False
    ration: float = 0.0

    def does(self, proxy: Proxy, scenario: Scenario) -> bool:
        """Whether this is measured at all."""
        if proxy.start is run_direct:
            return scenario.on_direct
        return not (proxy.slow and scenario.heavy)


def _micros(share: float) -> Callable[[Sample], float]:
    return lambda sample: percentile(sample.times, share) * 1e6


def _millis(share: float) -> Callable[[Sample], float]:
    return lambda sample: percentile(sample.times, share) * 1e3


def _cost(sample: Sample) -> float:
    return sample.cost


def _merged(sample: Sample) -> float:
    return sample.events / sample.reads


def _mebibytes(sample: Sample) -> float:
    return sample.resident / (1 << 20)


def _kibibytes_each(sample: Sample) -> float:
    return (sample.resident - sample.rested) / sample.clients / (1 << 10)


_PROXIES = (
    Row("CPU µs per small request", SMALL, _cost),
    Row("CPU µs per SSE chunk, 64 streams", STREAMS_64, _cost),
    Row("CPU µs per SSE chunk, 256 streams", STREAMS_256, _cost),
    Row("CPU µs per SSE chunk, 64 streams, unpaced", FLOOD_64, _cost),
    Row("CPU µs per 64 KB request", LARGE, _cost),
    Row("CPU µs per 8 MB request", HUGE, _cost, digits=0),
    Row("Latency p50 added, µs", ALONE, _micros(0.5), added=True, digits=0),
    Row("Latency p99 added, µs", ALONE, _micros(0.99), added=True, digits=0),
    Row("Chunks per read, 256 streams", STREAMS_256, _merged, digits=2, ratio=False),
    Row("Chunks per read, 64 streams, unpaced", FLOOD_64, _merged, digits=2, ratio=False),
    Row("RSS with 256 streams, MiB", STREAMS_256, _mebibytes),
)

_CROWDS = (
    Row("{n} streams at once: first chunk p50, ms", CROWD, _millis(0.5), digits=0),
    Row("{n} streams at once: first chunk p99, ms", CROWD, _millis(0.99), digits=0),
    Row("{n} streams: CPU seconds in all", CROWD, lambda sample: sample.proxy_cpu, digits=2),
    Row("{n} streams: RSS, MiB", CROWD, _mebibytes),
    Row("{n} streams: memory per stream, KiB", CROWD, _kibibytes_each),
    Row("{n} idle connections: RSS, MiB", IDLE, _mebibytes),
    Row("{n} idle connections: memory per connection, KiB", IDLE, _kibibytes_each),
    Row("{n} idle connections: latency of a request p50, µs", IDLE, _micros(0.5), digits=0),
    Row("{n} idle connections: latency of a request p99, µs", IDLE, _micros(0.99), digits=0),
)


def suites() -> list[Suite]:
    """All of them, with every proxy that there could be."""
    ours = circus(Setting(full=False), CIRCUS)
    full = circus(Setting(), CIRCUS_FULL)
    others = tuple(rivals())
    quick = tuple(proxy for proxy in others if not proxy.slow)
    return [
        Suite(
            key="proxies",
            title="One worker on one core",
            proxies=(Proxy(run_direct, (DIRECT,)), *others, ours, full),
            scenarios=(SMALL, ALONE, LARGE, HUGE, STREAMS_64, STREAMS_256, FLOOD_64),
            rows=_PROXIES,
        ),
        _first(quick, full),
        Suite(
            key="crowds",
            title="Many clients of one worker, which was just started",
            proxies=(*(replace(proxy, rounds=1 if proxy.name != NGINX else 2) for proxy in quick), full),
            scenarios=(CROWD, IDLE),
            rows=_CROWDS,
            fresh=True,
            rounds=2,
        ),
        _workers(),
        *((_rationed(),) if find_groups() else ()),
        _models(),
    ]


def _times(sample: Sample) -> Sequence[float]:
    return [seconds * 1e3 for seconds in sample.times]


def _ahead(sample: Sample) -> Sequence[float]:
    return sample.ahead


def _first(others: tuple[Proxy, ...], ours: Proxy) -> Suite:
    """Many short rounds, since the worst of a hundred first chunks is a matter of luck in a single one."""
    rows = [
        row
        for scenario, when in ((FIRST, "asked for in a step"), (FIRST_SPREAD, "asked for at any time"))
        for row in (
            Row(f"First chunk p50, {when}, ms", scenario, Pool(_times, 0.5), digits=2),
            Row(f"First chunk p99, {when}, ms", scenario, Pool(_times, 0.99), digits=2),
            Row(f"First chunk p99 beyond {NGINX}'s, {when}, ms", scenario, Pool(_times, 0.99, beyond=True), digits=2),
            Row(f"Chunks of others before it p99, {when}", scenario, Pool(_ahead, 0.99), digits=0, ratio=False),
            Row(f"CPU µs per chunk, {when}", scenario, _cost),
        )
    ]
    proxies = (Proxy(run_direct, (DIRECT,)), *others, ours)
    title = "The first chunk of one of 256 streams"
    return Suite("first", title, proxies, (FIRST, FIRST_SPREAD), tuple(rows), times=3, note=FIRST_NOTE)


def _workers() -> Suite:
    most = len(find_cores(os.sched_getaffinity(0), threads_of).proxies)
    title = "Workers that share a socket"
    proxies, rows = _by_workers((1, 2, 4) if most > 2 else (1, 2)), _worker_rows(WORKERS)
    return Suite("workers", title, proxies, (WORKERS,), rows, base=f"{CIRCUS} x1", helped=True)


def _rationed() -> Suite:
    """Where load and engine take the core that a second worker needs, this is what shows how workers scale."""
    title = f"Workers that share a socket and one core, each with {_RATION:.0%} of its time"
    proxies, rows = _by_workers((1, 2)), _worker_rows(RATIONED)
    return Suite("workers-rationed", title, proxies, (RATIONED,), rows, base=f"{CIRCUS} x1", ration=_RATION)


def _by_workers(counts: Sequence[int]) -> tuple[Proxy, ...]:
    names = (CIRCUS_FULL, CIRCUS)
    return (
        *(nginx(count, f"{NGINX} x{count}", NGINX) for count in counts),
        *(circus(Setting(workers=count), f"{CIRCUS} x{count}", *names) for count in counts),
    )


def _worker_rows(scenario: Scenario) -> tuple[Row, ...]:
    return (
        Row("Small requests per second", scenario, lambda sample: sample.events / sample.seconds, digits=0),
        Row("CPU µs per small request", scenario, _cost),
        Row("Cores used", scenario, lambda sample: sample.proxy_cpu / sample.seconds, digits=2),
    )


def _models() -> Suite:
    """Each proxy has so many models. Asked for in turn, each has connections of its own, a thousand for 32 clients:
    what that costs more is not the look-up's, so nginx has as many, and one model as many clients.
    """
    counts = (1, 10, 100, 1000)
    titles = {count: f"{count:,} model{'s' if count > 1 else ''}" for count in counts}
    proxies = tuple(circus(Setting(models=count), titles[count], CIRCUS_FULL, CIRCUS) for count in counts)
    others = {count: f"{NGINX}, {titles[count]}" for count in (counts[0], counts[-1])}
    nginxes = (
        nginx(1, others[counts[0]], NGINX, models=counts[0]),
        replace(nginx(1, others[counts[-1]], NGINX, models=counts[-1]), base=others[counts[0]]),
    )
    rows = (
        Row("CPU µs per small request, all for one of them", MODELS, _cost),
        Row("CPU µs per small request, all for one of them, {n} clients in turn", MODELS_SHARED, _cost),
        Row("CPU µs per small request, for each in turn", MODELS_SPREAD, _cost),
        Row("Latency p99 of 32 clients, each in turn, µs", MODELS_SPREAD, _micros(0.99), digits=0),
        Row("RSS, MiB", MODELS_SPREAD, _mebibytes),
    )
    return Suite(
        "models",
        f"{CIRCUS_FULL} with more and more models",
        (*proxies, *nginxes),
        (MODELS, MODELS_SHARED, MODELS_SPREAD),
        rows,
        base=titles[1],
        note=MODELS_NOTE,
    )


def choose(only: Sequence[str], targets: Sequence[str]) -> list[Suite]:
    """What is meant on the command line: nothing given means everything; a first word means all that begin so."""

    def is_meant(key: str) -> bool:
        return not only or any(key == word or key.startswith(f"{word}-") for word in only)

    chosen = []
    for suite in suites():
        scenarios = tuple(scenario for scenario in suite.scenarios if is_meant(scenario.key))
        proxies = tuple(p for p in suite.proxies if not targets or p.start is run_direct or {*p.names} & {*targets})
        if scenarios and any(suite.does(proxy, scenario) for proxy in proxies for scenario in scenarios):
            chosen.append(replace(suite, scenarios=scenarios, proxies=proxies))
    return chosen


def keys() -> list[str]:
    """What scenarios are called."""
    return [scenario.key for suite in suites() for scenario in suite.scenarios]


def names(*, slow: bool = True) -> list[str]:
    """What proxies are called, with the slow ones or without."""
    return [proxy.name for proxy in suites()[0].proxies if slow or not proxy.slow]


def scale(suite: Suite, effort: Effort, files: int) -> Suite:
    """The same with smaller crowds, where the effort is small or few files may be open."""
    most = (files - _SPARE_FILES) // 2  # a proxy may have a connection to the engine for each
    smaller = tuple(_scale(scenario, effort.crowd, most) for scenario in suite.scenarios)
    return replace(suite, scenarios=smaller)


def _scale(scenario: Scenario, by: int, most: int) -> Scenario:
    clients, order = scenario.clients, scenario.order
    if scenario.is_crowd:
        clients = max(1, min(clients // by, most))
        order = order if by == 1 else StreamOrder(3, 100)
    return replace(scenario, clients=clients, idle=min(scenario.idle // by, most), order=order)
