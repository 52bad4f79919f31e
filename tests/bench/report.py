"""From samples to a Markdown table: medians over the rounds, with the lowest and the highest beside them."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from math import ceil
from pathlib import Path
from statistics import median

from tests.bench.measures import ALONE, FLOOD_64, LARGE, SMALL, STREAMS_64, STREAMS_256, Effort, Sample, Scenario
from tests.bench.process import Cores
from tests.bench.targets import CIRCUS, DIRECT, NGINX, Target

#: Samples of each scenario and target, one a round.
Samples = Mapping[tuple[str, str], Sequence[Sample]]


@dataclass(frozen=True)
class Row:
    """A line of the table. `added`: proxies show what they add to the direct way in the same round."""

    title: str
    scenario: Scenario
    value: Callable[[Sample], float]
    added: bool = False
    digits: int = 1
    ratio: bool = True


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that is not below `share` of them (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, ceil(share * len(ordered)) - 1)]


def _time(share: float) -> Callable[[Sample], float]:
    return lambda sample: percentile(sample.times, share) * 1e6


def _cost(sample: Sample) -> float:
    return sample.cost


def _merged(sample: Sample) -> float:
    return sample.events / sample.reads


def _resident(sample: Sample) -> float:
    return sample.resident / (1 << 20)


ROWS = (
    Row("CPU µs per small request", SMALL, _cost),
    Row("CPU µs per SSE chunk, 64 streams", STREAMS_64, _cost),
    Row("CPU µs per SSE chunk, 256 streams", STREAMS_256, _cost),
    Row("CPU µs per SSE chunk, 64 streams, unpaced", FLOOD_64, _cost),
    Row("CPU µs per 64 KB request", LARGE, _cost),
    Row("Latency p50 added, µs", ALONE, _time(0.5), added=True, digits=0),
    Row("Latency p99 added, µs", ALONE, _time(0.99), added=True, digits=0),
    Row("First chunk p50 added, 256 streams, µs", STREAMS_256, _time(0.5), added=True, digits=0),
    Row("First chunk p99 added, 256 streams, µs", STREAMS_256, _time(0.99), added=True, digits=0),
    Row("Chunks per read, 256 streams", STREAMS_256, _merged, digits=2, ratio=False),
    Row("Chunks per read, 64 streams, unpaced", FLOOD_64, _merged, digits=2, ratio=False),
    Row("RSS with 256 streams, MiB", STREAMS_256, _resident),
)


def _values(row: Row, target: str, samples: Samples) -> list[float]:
    """A value for each round."""
    values = [row.value(sample) for sample in samples.get((row.scenario.name, target), ())]
    if row.added and target != DIRECT:
        direct = _values(row, DIRECT, samples)
        values = [value - base for value, base in zip(values, direct, strict=True)]
    return values


def table(targets: Sequence[Target], samples: Samples) -> Iterator[str]:
    """The lines of the table."""
    names = [target.name for target in targets]
    rows = [row for row in ROWS if any((row.scenario.name, name) in samples for name in names)]
    compared = [name for name in names if name.startswith(CIRCUS)] if NGINX in names else []
    yield _line("", *names, *(f"{name} ÷ nginx" for name in compared), "load's core busy")
    yield _line("---", *("---:" for _ in range(len(names) + len(compared) + 1)))
    for row in rows:
        values = {name: _values(row, name, samples) for name in names}
        cells = [_cell(row, name, values[name]) for name in names]
        ratios = [_ratio(row, values[name], values[NGINX]) for name in compared]
        shares = [
            median(sample.load_share for sample in samples[row.scenario.name, name]) for name in names if name != DIRECT
        ]
        yield _line(row.title, *cells, *ratios, f"{max(shares, default=0.0):.0%}")


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(row: Row, target: str, values: Sequence[float]) -> str:
    if not values or (target == DIRECT and not row.added):
        return ""
    shown = [f"{value:,.{row.digits}f}" for value in (median(values), min(values), max(values))]
    text = f"{shown[0]} ({shown[1]} to {shown[2]})" if len(values) > 1 else shown[0]
    return f"{text} in all" if target == DIRECT else text


def _ratio(row: Row, values: Sequence[float], base: Sequence[float]) -> str:
    """Of the medians; nothing where the base is no cost at all, as noise can make it."""
    return f"{median(values) / median(base):.2f}" if row.ratio and median(base) > 0 else ""


def describe(targets: Sequence[Target], cores: Cores, effort: Effort, foreign: float) -> Iterator[str]:
    """Where and how it was measured; `foreign` is the share of our cores that went to other processes."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("vllm-circus", "uvloop", "httptools", "tornado"))
    others = "".join(f", {target.name} {target.version}" for target in targets if target.version)
    python = f"{platform.python_implementation()} {platform.python_version()}"
    yield f"- Machine: {_processor()}, {os.cpu_count()} cores, {_memory():.0f} GiB, Linux {platform.release()}"
    yield f"- Software: {python}, {versions}{others}"
    if cores.load == cores.proxy:
        yield f"- Cores: one alone ({cores.proxy}) for proxy, load and mock engine: latencies say little"
    else:
        yield f"- Cores: the proxy on {cores.proxy}, load and mock engine on {cores.load}"
    judged = "quiet" if foreign < 0.05 else "NOISY: do not compare these figures with others"
    yield f"- Other processes took {foreign:.0%} of these cores meanwhile: {judged}"
    yield (
        f"- Medians of {effort.rounds} interleaved rounds (lowest to highest), windows of {effort.seconds:g} s, twice"
        " that for paced streams; answers of 200 chunks, one each 20 ms, all streams in step"
    )
    yield "- vllm-circus: routing, request id, counters and metrics on, request log off. nginx: none of them"


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _memory() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
