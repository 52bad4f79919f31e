"""Whose turn it is to start.

Rules:
- Higher priority first, equals in the file's order.
- A GPU sees one start at a time, from the wish to start until the model is ready or has failed: an engine measures
  the free memory while it loads, and another one that takes or frees some meanwhile spoils that. For the same reason
  a model that ends (draining, stopping, leftovers not gone) keeps its GPUs until it is gone.
- A model that has to wait keeps its GPUs reserved: nobody of lower priority overtakes it on them. On other GPUs they
  may, since that costs nobody anything.
- A model without pinned GPUs (`gpus: null`) may use any, so it shares with everyone where the machine has GPUs.
- Models that share no GPU start side by side, a limited number at a time: importing, reading weights and compiling
  keep several processors busy, and more at once than there is room for makes each of them slow.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from vllm_circus.lifecycle.life import Life
from vllm_circus.lifecycle.states import State

_CHANGING = frozenset({State.LOADING, State.DRAINING, State.STOPPING})
_CORES_PER_START = 4


@dataclass(frozen=True)
class Candidate:
    """One model as the scheduler sees it; `gpus` None is all of them."""

    name: str
    priority: int
    gpus: frozenset[int] | None
    life: Life


def most_starts(cores: int) -> int:
    """How many models may load side by side on a machine of so many cores: one for each four, and two at least."""
    return max(2, cores // _CORES_PER_START)


def claimed_gpus(pinned: tuple[int, ...] | None, *, machine_has_gpus: bool) -> frozenset[int] | None:
    """The GPUs that a model may touch; None is all."""
    if pinned is None:
        return None if machine_has_gpus else frozenset()
    return frozenset(pinned)


def next_starts(models: Iterable[Candidate], most: int) -> Iterator[str]:
    """The models to start now, given every model in the file's order."""
    everyone = list(models)
    taken = [model.gpus for model in everyone if model.life.state in _CHANGING or model.life.remains]
    loading = sum(model.life.state is State.LOADING for model in everyone)
    waiting = [model for model in everyone if model.life.state is State.QUEUED]
    for model in sorted(waiting, key=lambda model: -model.priority):
        mine = [model.gpus] if model.life.remains else []  # its own leftovers are in `taken`: it waits for them
        free = not mine and loading < most and not any(_share(model.gpus, other) for other in taken)
        taken.append(model.gpus)
        if free:
            loading += 1
            yield model.name


def _share(one: frozenset[int] | None, other: frozenset[int] | None) -> bool:
    if one is None or other is None:
        return one != frozenset() != other
    return not one.isdisjoint(other)
