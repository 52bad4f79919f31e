"""Whose turn it is to start or to wake up, and who is to make room.

Rules:
- Higher priority first, equals in the file's order.
- A GPU sees one start at a time, from the wish to start until the model is ready or has failed: an engine measures
  the free memory while it loads, and another one that takes or frees some meanwhile spoils that. For the same reason
  a model that ends or falls asleep (draining, stopping, leftovers not gone) keeps its GPUs until it has, waking up
  counts as a start, and idleness waits where another loads (`calm`).
- A model that has to wait keeps its GPUs reserved: nobody of lower priority overtakes it on them. On other GPUs they
  may, since that costs nobody anything.
- A model without pinned GPUs (`gpus: null`) may use any, so it shares with everyone where the machine has GPUs.
- Models that share no GPU start side by side, a limited number at a time: importing, reading weights and compiling
  keep several processors busy, and more at once than there is room for makes each of them slow. Waking up is no such
  work.

A process does not move: one that was started by an earlier plan has the GPUs and the address of that plan until it is
gone. Whoever is to have them now waits as long as it is about to leave them, and reserves nothing meanwhile: the other
may have to wait for GPUs itself.

Models of one `exclusive` name take turns on their GPUs:
- One at most is awake: from its start or waking up until it sleeps, or until nothing of it is left.
- Those that somebody waits for (`wished`) come first, the one that has waited longest before all: whoever had a turn
  joins the line behind the others. The rest come by priority.
- The one that is awake makes room when somebody waits for another, and it had its `turn` or is quiet. Requests that
  waited for it get the time to be sent.
- Whoever is in the line with nobody waiting leaves it as soon as another is awake or waited for: with a new set one of
  them starts, and the others rest on call. A crash of one costs another no turn.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from vllm_circus.lifecycle.life import Life
from vllm_circus.lifecycle.states import State

_ARRIVING = frozenset({State.LOADING, State.WAKING})
_CHANGING = _ARRIVING | {State.DRAINING, State.STOPPING}
_SERVING = frozenset({State.READY, State.UNHEALTHY})
_CORES_PER_START = 4
#: Seconds without a request after which a model makes room before its turn is over, and the shortest turn: the workers
#: hear that it is ready, and send what waits for it.
_QUIET_ENOUGH = 3.0
_LEAST_TURN = 2.0


@dataclass(frozen=True)
class Holding:
    """What a process has by an earlier plan: its GPUs, where it listens, and whether it is about to leave both."""

    gpus: frozenset[int] | None
    place: str
    leaves: bool


@dataclass(frozen=True)
class Candidate:
    """One model as the scheduler sees it; `gpus` None is all of them, `turn` in seconds, `place` where it listens.

    `holding` is None where its process, if there is one, was started by the plan of now.
    """

    name: str
    priority: int
    gpus: frozenset[int] | None
    life: Life
    exclusive: str | None = None
    turn: float = 0.0
    place: str = ""
    holding: Holding | None = None

    @property
    def has(self) -> frozenset[int] | None:
        """The GPUs of its process, or of what it left."""
        return self.gpus if self.holding is None else self.holding.gpus

    @property
    def waits(self) -> bool:
        """Whether it is to start or to wake up."""
        return self.life.state is State.QUEUED or (self.life.state is State.SLEEPING and self.life.wished)

    @property
    def awake(self) -> bool:
        """Whether it, or what it left, may hold the memory of its GPUs."""
        return self.life.state in _CHANGING | _SERVING or bool(self.life.remains)


def most_starts(cores: int) -> int:
    """How many models may load side by side on a machine of so many cores: one for each four, and two at least."""
    return max(2, cores // _CORES_PER_START)


def claimed_gpus(pinned: tuple[int, ...] | None, *, machine_has_gpus: bool) -> frozenset[int] | None:
    """The GPUs that a model may touch; None is all."""
    if pinned is None:
        return None if machine_has_gpus else frozenset()
    return frozenset(pinned)


def next_starts(models: Iterable[Candidate], most: int) -> Iterator[str]:
    """The models to start or wake up now, given every model in the file's order."""
    everyone = list(models)
    taken = [model.has for model in everyone if model.life.state in _CHANGING or model.life.remains]
    loading = sum(model.life.state is State.LOADING for model in everyone)
    waiting = [model for model in everyone if model.waits and _is_next(model, everyone)]
    for model in sorted(waiting, key=lambda model: -model.priority):
        starts = model.life.state is State.QUEUED
        if starts and in_the_way(model, everyone):
            continue
        wanted = model.gpus if starts else model.has
        mine = [wanted] if model.life.remains else []  # its own leftovers are in `taken`: it waits for them
        room = loading < most or not starts
        free = not mine and room and not any(_share(wanted, other) for other in taken)
        taken.append(wanted)
        if free:
            loading += starts
            yield model.name


def in_the_way(model: Candidate, others: Iterable[Candidate]) -> list[str]:
    """Those whose processes have by an earlier plan what the model is to have now, and are about to leave it."""
    return [
        other.name
        for other in others
        if other is not model
        and (held := other.holding) is not None
        and held.leaves
        and (held.place == model.place or _share(held.gpus, model.gpus))
    ]


def turns_over(models: Iterable[Candidate], now: float) -> Iterator[str]:
    """The models that are to make room for another of their `exclusive` name, or to leave its line (steady clock)."""
    everyone = list(models)
    calm = are_calm(everyone)
    for model in everyone:
        others = _others(model, everyone)
        sought = any(other.waits and other.life.wished for other in others)
        if model.life.state in _SERVING and sought:
            if model.name in calm and _had_its_turn(model, now):
                yield model.name
        elif model.life.state is State.QUEUED and not model.life.wished and (sought or any(o.awake for o in others)):
            yield model.name


def are_calm(models: Iterable[Candidate]) -> frozenset[str]:
    """Those on whose GPUs no other model loads or wakes up, so that they may give memory back."""
    everyone = list(models)
    arriving = [model for model in everyone if model.life.state in _ARRIVING]
    return frozenset(
        model.name
        for model in everyone
        if not any(other is not model and _share(model.has, other.has) for other in arriving)
    )


def _others(model: Candidate, everyone: Iterable[Candidate]) -> list[Candidate]:
    """Those that it takes turns with."""
    if model.exclusive is None:
        return []
    return [other for other in everyone if other is not model and other.exclusive == model.exclusive]


def _is_next(model: Candidate, everyone: list[Candidate]) -> bool:
    """Whether no other of its `exclusive` name is awake, or before it in the line."""
    if model.exclusive is None:
        return True
    same = [other for other in everyone if other.exclusive == model.exclusive]
    if any(other.awake for other in same if other is not model):
        return False
    return min((other for other in same if other.waits), key=_place) is model


def _place(model: Candidate) -> tuple[bool, float, int]:
    """Where it stands in the line of its `exclusive` name; the smallest is first."""
    since = model.life.waits or 0.0
    return not model.life.wished, since if model.life.wished else 0.0, -model.priority


def _had_its_turn(model: Candidate, now: float) -> bool:
    life = model.life
    if now - life.since >= max(model.turn, _LEAST_TURN):
        return True
    return life.quiet is not None and now - max(life.quiet, life.since) >= _QUIET_ENOUGH


def _share(one: frozenset[int] | None, other: frozenset[int] | None) -> bool:
    if one is None or other is None:
        return one != frozenset() != other
    return not one.isdisjoint(other)
