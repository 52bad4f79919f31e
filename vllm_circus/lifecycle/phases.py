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


def read_phase(line: str) -> str | None:
    """The phase that a log line tells of, or None."""
    for pattern, phase in _PHASES:
        if found := pattern.search(line):
            return phase.format(*found.groups())
    return None


def remember_load(former: Sequence[float], seconds: float) -> tuple[float, ...]:
    """The durations of the last loads, with one more."""
    return (*former, seconds)[-_REMEMBERED:]


def expected_load(former: Sequence[float]) -> float | None:
    """How many seconds a load is expected to take: the median of the last ones, None before the first."""
    return median(former) if former else None


def remaining_load(former: Sequence[float], elapsed: float) -> float | None:
    """Seconds that a load is expected to go on; one that is late already is given a tenth of its usual time."""
    expected = expected_load(former)
    return None if expected is None else max(expected - elapsed, expected / 10, 1.0)
