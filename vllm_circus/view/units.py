"""Numbers as people read them: short, with their unit, never more than seven characters."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from vllm_circus.bus.messages import Histogram

UNKNOWN = "-"


def size(count: int) -> str:
    """Bytes in binary units: `512B`, `1.5K`, `79.6G`."""
    if count < 1024:
        return f"{count}B"
    value, unit = count / 1024, "K"
    for bigger in "MGTP":
        if value < 999.95:
            break
        value, unit = value / 1024, bigger
    return f"{value:.1f}{unit}"


def duration(seconds: float) -> str:
    """Seconds as `8s`, `3m12s`, `5h03m` or `12d4h`; less than none (a clock was set) counts as none."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    days = whole // 86400
    return f"{days}d{whole % 86400 // 3600}h" if days < 1000 else f"{days}d"


def latency(seconds: float) -> str:
    """A short time: `<1ms`, `85ms`, `2.35s`, `12.4s`, and as `duration` from a minute on."""
    if seconds < 0.001:
        return "<1ms"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f}ms"
    if seconds < 9.995:
        return f"{seconds:.2f}s"
    return f"{seconds:.1f}s" if seconds < 59.95 else duration(seconds)


def rate(value: float) -> str:
    """So many a second: `0`, `3.2`, `312`, `12.3k`."""
    if value < 0.05:
        return "0"
    return f"{value:.1f}" if value < 9.95 else count(round(value))


def count(value: int) -> str:
    """A number of things: `99999`, `123k`, `4.5M`."""
    if value < 100_000:
        return str(value)
    if value < 999_500:
        return f"{value / 1000:.0f}k"
    return f"{value / 1e6:.1f}M" if value < 999_950_000 else f"{value / 1e9:.1f}G"


def counted(number: int, noun: str) -> str:
    """A number with its noun: `1 worker`, `2 workers`, `0 processes`."""
    ending = "" if number == 1 else "es" if noun.endswith("s") else "s"
    return f"{number} {noun}{ending}"


def quantile(histogram: Histogram, bounds: Sequence[float], share: float) -> float | None:
    """An estimate of the value that `share` (0 to 1) of all are within; None without values.

    It lies in the same bucket as the true one. All buckets are taken to hold their values equally far up, as far as
    the sum of all says: so values that share one bucket have their mean, and equal ones are told exactly.
    """
    if not histogram.count:
        return None
    ranges = _ranges(histogram, bounds)
    passed = zip(ranges, histogram.counts, accumulate(histogram.counts), strict=False)
    reached = (range_ for range_, here, so_far in passed if here and so_far >= share * histogram.count)
    low, high = next(reached, ranges[-1])
    return min(high, low + (high - low) * _height(histogram, ranges))


def _ranges(histogram: Histogram, bounds: Sequence[float]) -> list[tuple[float, float]]:
    """What each bucket's values lie between. Those of the open one have, on average, no more than the others leave."""
    lows = (0.0, *bounds)
    rest = histogram.total - _dot(histogram.counts[: len(bounds)], lows)
    most = rest / histogram.counts[-1] if histogram.counts[-1] else 0.0
    return list(zip(lows, (*bounds, max(most, lows[-1])), strict=True))


def _height(histogram: Histogram, ranges: Sequence[tuple[float, float]]) -> float:
    """How far up in their buckets the values are, from 0 to 1, if they are equally far up in each."""
    least, most = (_dot(histogram.counts, ends) for ends in zip(*ranges, strict=True))
    return min(1.0, max(0.0, (histogram.total - least) / (most - least))) if most > least else 0.0


def _dot(counts: Sequence[int], values: Sequence[float]) -> float:
    return sum(number * value for number, value in zip(counts, values, strict=False))
