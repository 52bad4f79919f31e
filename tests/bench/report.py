"""From samples to Markdown tables: medians over the rounds, with the lowest and the highest beside them.

Percentiles of all rounds together have the two ends of their 95 % interval there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from tests.bench.measures import Sample
from tests.bench.pooled import estimate
from tests.bench.run import Result
from tests.bench.suites import Pool, Row, Suite
from tests.bench.targets import DIRECT


@dataclass(frozen=True)
class Line:
    """A row with its figures: of each proxy one value a round, none where it was not measured; a pool's are three.

    `busy` is the highest share of the load's core that any of the proxies made it use.
    """

    title: str
    row: Row
    values: dict[str, list[float]]
    busy: float

    def ratio(self, name: str, base: str) -> float | None:
        """Of the medians; None where the base is no cost at all, as noise can make it."""
        if not self.row.ratio or not self.values.get(name) or not self.values.get(base):
            return None
        divisor = self.figures(base)[0]
        return self.figures(name)[0] / divisor if divisor > 0 else None

    def figures(self, name: str) -> tuple[float, float, float]:
        """What is shown of a proxy that was measured: the figure, and from where to where it goes."""
        values = self.values[name]
        if isinstance(self.row.value, Pool):
            return values[0], values[1], values[2]
        return median(values), min(values), max(values)


def lines(result: Result) -> list[Line]:
    """The rows of a table that anything was measured for."""
    return [line for row in result.suite.rows if (line := _line_of(row, result)) is not None]


def _line_of(row: Row, result: Result) -> Line | None:
    key = row.scenario.key
    names = [proxy.name for proxy in result.suite.proxies]
    there = {name: samples for name in names if (samples := result.samples.get((key, name)))}
    proxied = {name: samples for name, samples in there.items() if name != DIRECT}
    if not proxied:
        return None
    values = _pooled(row.value, there, result.suite) if isinstance(row.value, Pool) else _each(row, row.value, there)
    clients = next(iter(proxied.values()))[0].clients
    busy = max(median(sample.load_share for sample in samples) for samples in proxied.values())
    return Line(row.title.replace("{n}", f"{clients:,}"), row, values, busy)


def _each(row: Row, value: Callable[[Sample], float], there: dict[str, list[Sample]]) -> dict[str, list[float]]:
    """One value a round."""
    values = {name: [value(sample) for sample in samples] for name, samples in there.items()}
    if row.added and DIRECT in values:
        base = values[DIRECT]
        return {name: found if name == DIRECT else _less(found, base) for name, found in values.items()}
    if not row.added:
        values.pop(DIRECT, None)
    return values


def _pooled(pool: Pool, there: dict[str, list[Sample]], suite: Suite) -> dict[str, list[float]]:
    """The percentile and its interval; beyond the base's, those of all others."""
    rounds = {name: [pool.values(sample) for sample in samples] for name, samples in there.items()}
    if not pool.beyond:
        return {name: list(estimate(found, pool.share)) for name, found in rounds.items()}
    base = rounds.pop(suite.base, None)
    rounds.pop(DIRECT, None)
    return {} if base is None else {name: list(estimate(found, pool.share, base)) for name, found in rounds.items()}


def _less(values: Sequence[float], base: Sequence[float]) -> list[float]:
    """Round by round; a slow proxy has fewer of them."""
    return [value - direct for value, direct in zip(values, base, strict=False)]


def tables(results: Sequence[Result]) -> Iterator[str]:
    """All tables: figures, and how they compare with the base's."""
    for result in results:
        found = lines(result)
        yield f"### {result.suite.title}"
        yield ""
        yield from _figures(result, found)
        yield ""
        if result.suite.note:
            yield result.suite.note
            yield ""
        ratios = list(_ratios(result, found))
        if len(ratios) > 2:
            others = (f"{proxy.name} by what {proxy.base} has" for proxy in result.suite.proxies if proxy.base)
            yield f"Divided by what {', '.join((f'{result.suite.base} has', *others))}:"
            yield ""
            yield from ratios
            yield ""


def _figures(result: Result, found: Sequence[Line]) -> Iterator[str]:
    names = [proxy.name for proxy in result.suite.proxies]
    yield _cells("", *names, "load's core busy")
    yield _cells("---", *("---:" for _ in range(len(names) + 1)))
    for line in found:
        yield _cells(line.title, *(_cell(line, name) for name in names), f"{line.busy:.0%}")


def _ratios(result: Result, found: Sequence[Line]) -> Iterator[str]:
    base = result.suite.base
    bases = {base, DIRECT, *(proxy.base for proxy in result.suite.proxies)}
    against = {proxy.name: proxy.base or base for proxy in result.suite.proxies if proxy.name not in bases}
    yield _cells("", *against)
    yield _cells("---", *("---:" for _ in against))
    for line in found:
        shares = [line.ratio(name, other) for name, other in against.items()]
        if any(share is not None for share in shares):
            yield _cells(line.title, *("" if share is None else _quotient(share) for share in shares))


def _quotient(share: float) -> str:
    return f"{share:,.0f}" if share >= 20 else f"{share:.2f}"


def _cells(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(line: Line, name: str) -> str:
    values = line.values.get(name)
    if not values:
        return ""
    shown = [f"{value:,.{line.row.digits}f}" for value in line.figures(name)]
    text = f"{shown[0]} ({shown[1]} to {shown[2]})" if len(values) > 1 else shown[0]
    return f"{text} in all" if name == DIRECT and line.row.added else text
