"""Percentiles of all rounds together, and how sure they are.

Rules: what happens in one round hangs together, so rounds are drawn anew and never single values (a cluster bootstrap);
two proxies that are compared are compared in the same rounds. Draws are always the same ones: a table made twice from
the same samples is the same table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil
from random import Random

#: Draws, of which the middle 95 % are told.
_DRAWS = 400
_TAIL = 0.025


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that is not below `share` of them (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, ceil(share * len(ordered)) - 1)]


def estimate(
    rounds: Sequence[Sequence[float]], share: float, beyond: Sequence[Sequence[float]] | None = None
) -> tuple[float, float, float]:
    """This percentile of the values of all rounds: the figure, and the two ends of its 95 % interval.

    `beyond`: less what it is there, round by round.
    """
    count = len(rounds) if beyond is None else min(len(rounds), len(beyond))

    def figure(drawn: Sequence[int]) -> float:
        found = _percentile_of(rounds, drawn, share)
        return found if beyond is None else found - _percentile_of(beyond, drawn, share)

    drawn = _draws(figure, count)
    return figure(range(count)), percentile(drawn, _TAIL), percentile(drawn, 1 - _TAIL)


def _draws(figure: Callable[[Sequence[int]], float], count: int) -> list[float]:
    random = Random(count)
    return [figure(random.choices(range(count), k=count)) for _ in range(_DRAWS)]


def _percentile_of(rounds: Sequence[Sequence[float]], drawn: Sequence[int], share: float) -> float:
    return percentile([value for number in drawn for value in rounds[number]], share)
