"""What a loading engine is at, read from its log, and how long it may still take."""

from __future__ import annotations

import re
from collections.abc import Sequence
from statistics import median

#: What a line of vLLM's start-up says (seen on 0.32, those marked S read in the source of 0.33), in its order.
_PHASES = (
    (re.compile(r"Fetching \d+ files: +(\d+)%"), "downloading {0} %"),
    (re.compile(r"non-default args:"), "starting"),
    (re.compile(r"Resolved architecture"), "reading the model's configuration"),
    (re.compile(r"Initializing a V1 LLM engine"), "starting the engine"),
    (re.compile(r"Starting to load model"), "loading weights"),
    (re.compile(r"Loading \w+ checkpoint shards: +(\d+)%"), "loading weights {0} %"),
    (re.compile(r"Loading weights took|Model loading took"), "weights loaded"),  # S: the second
    (re.compile(r"Dynamo bytecode transform|Compiling a graph|torch\.compile takes"), "compiling"),  # S
    (re.compile(r"Available KV cache memory|[GC]PU KV cache size"), "allocating the KV cache"),
    (re.compile(r"Capturing CUDA graphs?[^%]* (\d+)%"), "capturing graphs {0} %"),  # S
    (re.compile(r"Graph capturing finished"), "graphs captured"),  # S
    (re.compile(r"init engine \("), "engine started"),
    (re.compile(r"Starting vLLM server on"), "opening the port"),
)
_REMEMBERED = 5
#: How far a load is, roughly, when a phase begins: the weights take most of it.
_STAGES = (
    ("downloading", 0.0),
    ("starting", 0.02),
    ("reading the model's configuration", 0.05),
    ("starting the engine", 0.08),
    ("loading weights", 0.12),
    ("weights loaded", 0.6),
    ("compiling", 0.62),
    ("allocating the KV cache", 0.8),
    ("capturing graphs", 0.84),
    ("graphs captured", 0.94),
    ("engine started", 0.96),
    ("opening the port", 0.98),
)


def read_phase(line: str) -> str | None:
    """The phase that a log line tells of, or None."""
    for pattern, phase in _PHASES:
        if found := pattern.search(line):
            return phase.format(*found.groups())
    return None


def stage_of(phase: str) -> tuple[float, float] | None:
    """Between which shares of a load, 0 to 1, a phase lies as a rule; None for one that nobody knows."""
    name = re.sub(r" \d+ %$", "", phase)
    for number, (known, begin) in enumerate(_STAGES):
        if known == name:
            return begin, _STAGES[number + 1][1] if number + 1 < len(_STAGES) else 1.0
    return None


def remember_load(former: Sequence[float], seconds: float) -> tuple[float, ...]:
    """The durations of the last loads, with one more."""
    return (*former, seconds)[-_REMEMBERED:]


def expected_load(former: Sequence[float]) -> float | None:
    """How many seconds a load is expected to take: the median of the last ones, None before the first."""
    return median(former) if former else None


def remaining_load(former: Sequence[float], elapsed: float) -> float | None:
    """Seconds that a load is expected to go on, None before the first one.

    One that is late already is given as long again as it is late, and at most a quarter of the time that it took.
    """
    expected = expected_load(former)
    if expected is None:
        return None
    return max(expected - elapsed, min(elapsed - expected, elapsed / 4), 1.0)
