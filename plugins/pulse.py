"""Feel an engine's pulse: its own counters of requests and steps, from its page of metrics.

They tell two things that nobody else does. Requests that run while no step is made are a hang, whatever the health page
says. And where the stats plugin is silent, nobody knows whether a model that is to end is free of requests: its workers
have long heard that it drains, so an engine without a request that runs or waits, twice in a row, is free.

Rules: only engines whose metrics are known are asked; a page that does not tell says nothing; nobody is asked for
nothing, since a page of metrics is work for an engine with many requests. Deciding is pure.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from vllm_circus.lifecycle.events import Counted, Drained, Event
from vllm_circus.lifecycle.life import Life
from vllm_circus.lifecycle.states import State
from vllm_circus.plan.types import ModelPlan

from .drains import STALE
from .exchange import Engine, NoAnswer

_ENGINES = frozenset({"vllm", "simulator"})
_ANSWERING = frozenset({State.READY, State.UNHEALTHY, State.DRAINING})
_MOST_BYTES = 8 << 20
#: Every so many probes, and so often at least within `hang_after`.
_PROBES = 3
_LOOKS = 4
#: Seconds between two looks at whether an engine is free of requests, and how many in a row prove it.
_FREE_EVERY = 1.0
_FREE_LOOKS = 2

# The names are prefixes of others, so the brace belongs to them; labels may hold anything, braces too.
_SAMPLE = re.compile(
    rb"^vllm:(num_requests_running|num_requests_waiting|iteration_tokens_total_count)\{.*\}[ \t]+(\S+)", re.MULTILINE
)


@dataclass(frozen=True)
class Pulse:
    """Requests that run and wait in the engine, and the steps that it made since it was started."""

    running: float
    waiting: float
    iterations: float


def read_pulse(page: bytes) -> Pulse | None:
    """What a page of metrics tells, summed over its labels; None where it lacks one of them."""
    sums: dict[bytes, float] = {}
    for name, text in _SAMPLE.findall(page):
        try:
            value = float(text)
        except ValueError:
            return None
        sums[name] = sums.get(name, 0.0) + value
    if len(sums) < 3 or not all(map(math.isfinite, sums.values())):
        return None
    return Pulse(sums[b"num_requests_running"], sums[b"num_requests_waiting"], sums[b"iteration_tokens_total_count"])


async def feel(engine: Engine, within: float) -> Pulse | None:
    """The engine's pulse; None where it does not tell it `within` these seconds."""
    try:
        async with asyncio.timeout(within):
            answer = await engine.ask("GET", "/metrics", most=_MOST_BYTES)
    except (NoAnswer, OSError, TimeoutError):
        return None
    return read_pulse(answer.body) if answer.status == 200 else None


class PulseWatch:
    """Decides whose pulse is to be felt, and what follows from it. Times are of the steady clock."""

    def __init__(self) -> None:
        self._asked: dict[str, float] = {}
        self._under_way: set[str] = set()
        self._free: dict[str, tuple[float, int]] = {}

    def is_due(self, model: ModelPlan, life: Life, *, busy: bool, silent: bool, now: float) -> bool:
        """Whether to feel it now; whoever is told so says `ended` when that is over, well or not.

        `busy` is whether the workers said that requests are in flight, `silent` that nobody says anything.
        """
        if model.engine not in _ENGINES or life.pid is None or life.state not in _ANSWERING:
            return False
        if model.name in self._under_way:
            return False
        every = [_FREE_EVERY] if silent and _is_draining(life, now) else []
        limit = model.probe.hang_after
        if limit is not None and (busy or silent or life.frozen is not None):
            every.append(min(_PROBES * model.probe.interval, limit / _LOOKS))
        if not every or now - self._asked.get(model.name, 0.0) < min(every):
            return False
        self._asked[model.name] = now
        self._under_way.add(model.name)
        return True

    def ended(self, name: str) -> None:
        """It may be felt again."""
        self._under_way.discard(name)

    def take(self, name: str, life: Life, pulse: Pulse | None, *, silent: bool, asked: float) -> Iterator[Event]:
        """What follows from what an engine told, asked at `asked`; `life` and `silent` are as of now."""
        if pulse is not None:
            yield Counted(asked, pulse.running, pulse.iterations)
        if not silent or not _is_draining(life, asked):
            self._free.pop(name, None)
            return
        since, looks = self._free.get(name, (life.since, 0))
        before = looks if since == life.since else 0  # those of an earlier draining prove nothing
        free = pulse is not None and pulse.running == pulse.waiting == 0
        self._free[name] = (life.since, before + 1 if free else 0)
        if self._free[name][1] >= _FREE_LOOKS:
            yield Drained()


def _is_draining(life: Life, now: float) -> bool:
    """Whether it drains for long enough that every worker has heard of it, and was asked for nothing else yet."""
    return life.state is State.DRAINING and not life.dozing and now - life.since > STALE
