"""Look at engines that live, from everywhere: probes, their own counters, and what the proxy workers tell of them.

What is seen is fed to the lives; what follows from it is theirs to decide. Workers tell each second and with every
change, engines are asked as often as they need.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, Protocol

from vllm_circus.bus.messages import CountsMessage
from vllm_circus.lifecycle.events import Drained, Event, Unheard
from vllm_circus.lifecycle.life import Life
from vllm_circus.lifecycle.states import State
from vllm_circus.plan.types import ModelPlan

from .base import BEAT
from .drains import DrainWatch
from .exchange import Engine
from .probes import probe
from .pulse import PulseWatch, feel
from .traffic import Traffic

_ARRIVING = frozenset({State.LOADING, State.WAKING})
_PROBED = _ARRIVING | {State.READY, State.UNHEALTHY, State.DRAINING}
_NAMED = _ARRIVING | {State.UNHEALTHY}
#: Seconds between probes of a model that loads or wakes up, at most: mostly its port is not even open.
_ARRIVING_INTERVAL = 0.5


class Lives(Protocol):
    """What is needed of `keeper.Keeper`."""

    @property
    def models(self) -> Mapping[str, ModelPlan]:
        """Every model that has a life."""

    def running(self, name: str) -> ModelPlan:
        """The plan of one, as far as its process goes by it."""

    @property
    def lives(self) -> Mapping[str, Life]:
        """Their lives."""

    @property
    def turned(self) -> Mapping[str, int]:
        """The sequence with which each came into its present state."""

    @property
    def sequence(self) -> int:
        """That of the last change."""


class Lookout:
    """`feed` takes what is seen, `spawn` runs what takes time; `secrets` is the instance's folder of engine keys."""

    def __init__(
        self,
        lives: Lives,
        feed: Callable[[str, Event], None],
        spawn: Callable[[str, Coroutine[Any, Any, None]], None],
        secrets: Path,
    ) -> None:
        self._lives = lives
        self._feed = feed
        self._spawn = spawn
        self._secrets = secrets
        self._drains = DrainWatch(time.monotonic())
        self._traffic = Traffic()
        self._pulses = PulseWatch()
        self._probed: dict[str, float] = {}

    def hear(self, counts: CountsMessage) -> None:
        """What the workers counted."""
        now = time.monotonic()
        self._drains.hear(counts, now)
        models = self._lives.models.values()
        for name, event in list(self._traffic.hear(counts, models, complete=self._drains.is_complete(now))):
            self._feed(name, event)
        self._watch_drains(now)

    def look(self, name: str, now: float) -> None:
        """Ask an engine with a living process whatever is due."""
        model, life = self._lives.running(name), self._lives.lives[name]
        arrives = life.state in _ARRIVING
        interval = min(model.probe.interval, _ARRIVING_INTERVAL) if arrives else model.probe.interval
        if life.state in _PROBED and now - self._probed.get(name, 0.0) >= interval - BEAT / 2:
            self._probed[name] = now
            named = life.state in _NAMED and model.check_names
            self._spawn(f"probing {name}", self._probe(model, now, _names(model, life) if named else ()))
        silent = self._drains.is_silent(now)
        if self._pulses.is_due(model, life, busy=self._traffic.is_busy(name), silent=silent, now=now):
            self._spawn(f"feeling the pulse of {name}", self._feel(model, now))

    def look_round(self, now: float) -> None:
        """After every engine was looked at: what follows from what nobody tells."""
        if self._drains.is_silent(now):
            for name in self._lives.lives:
                self._feed(name, Unheard())
        self._watch_drains(now)

    async def _probe(self, model: ModelPlan, asked: float, names: tuple[str, ...]) -> None:
        self._feed(model.name, await probe(model, asked=asked, secrets=self._secrets, names=names))

    async def _feel(self, model: ModelPlan, asked: float) -> None:
        try:
            pulse = await feel(Engine(model, self._secrets), model.probe.timeout)
        finally:
            self._pulses.ended(model.name)
        life = self._lives.lives.get(model.name)
        if life is not None:
            silent = self._drains.is_silent(time.monotonic())
            for event in list(self._pulses.take(model.name, life, pulse, silent=silent, asked=asked)):
                self._feed(model.name, event)

    def _watch_drains(self, now: float) -> None:
        for name, life in list(self._lives.lives.items()):
            sequence = self._lives.turned.get(name, self._lives.sequence)
            if life.state is State.DRAINING and self._drains.is_drained(name, sequence, now):
                self._feed(name, Drained())


def _names(model: ModelPlan, life: Life) -> tuple[str, ...]:
    """What it is to list: the plan may have got other names since its process was started."""
    return tuple(name for name in model.names if name in life.names) or model.names
