"""What the last seconds brought: requests and tokens a second over ten of them, first tokens of a minute. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping

from vllm_circus.bus.messages import Histogram, ModelCounts

WINDOW = 10.0
#: Seconds that the first tokens are told of: fewer hold too few requests for a quantile.
FIRST_TOKENS = 60.0

#: Finished requests, events of streams, completion tokens.
_Numbers = tuple[int, int, int]
_Change = Callable[[_Numbers, _Numbers], int]


class Rates:
    """Remembers the sums of the last seconds. Times are of the steady clock."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, dict[str, _Numbers]]] = deque()

    def note(self, now: float, sums: Mapping[str, ModelCounts]) -> None:
        """Take the present sums down; call about once a second."""
        numbers = {name: (each.requests, each.chunks, each.completion_tokens) for name, each in sums.items()}
        self._samples.append((now, numbers))
        while len(self._samples) > 2 and self._samples[1][0] <= now - WINDOW:
            self._samples.popleft()

    def requests(self) -> dict[str, float]:
        """Finished requests a second, by model."""
        return self._per_second(lambda before, after: after[0] - before[0])

    def tokens(self) -> dict[str, float]:
        """Generated tokens a second, by model.

        Streams tell them by their events, other answers by their `usage`, and streams with `usage` by both: the
        larger of the two sums is given, which may be too little for a mixture but never counts a token twice.
        """
        return self._per_second(lambda before, after: max(after[1] - before[1], after[2] - before[2]))

    def _per_second(self, change: _Change) -> dict[str, float]:
        if len(self._samples) < 2:
            return {}
        (begun, first), (ended, last) = self._samples[0], self._samples[-1]
        seconds = ended - begun
        if seconds <= 0:
            return {}
        return {name: max(0.0, change(first.get(name, (0, 0, 0)), last[name]) / seconds) for name in last}


class FirstTokens:
    """Remembers the histograms of the last minute. Times are of the steady clock."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, dict[str, Histogram]]] = deque()

    def note(self, now: float, sums: Mapping[str, ModelCounts]) -> None:
        """Take the present sums down; call about once a second."""
        self._samples.append((now, {name: each.first_token for name, each in sums.items()}))
        while len(self._samples) > 2 and self._samples[1][0] <= now - FIRST_TOKENS:
            self._samples.popleft()

    def recent(self) -> dict[str, Histogram]:
        """What was added meanwhile, by model; models without anything are left out."""
        if len(self._samples) < 2:
            return {}
        first, last = self._samples[0][1], self._samples[-1][1]
        added = {name: _added(first.get(name), histogram) for name, histogram in last.items()}
        return {name: histogram for name, histogram in added.items() if histogram.count}


def _added(before: Histogram | None, after: Histogram) -> Histogram:
    if before is None or len(before.counts) != len(after.counts):
        return after
    counts = tuple(max(0, new - old) for old, new in zip(before.counts, after.counts, strict=True))
    return Histogram(counts, max(0.0, after.total - before.total))
