"""Whether a model of this disk has room on the GPUs as they are now.

The rules are those of `fit`: the engine's usual share of each GPU, one sequence of the whole length, or a shorter one
where only that has room. Nothing is read again: the survey knows the files' sizes and the config.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vllm_circus.catalogue.types import LocalModel
from vllm_circus.errors import CircusError
from vllm_circus.gpu import Gpu
from vllm_circus.plan.fit.architecture import Architecture, read_architecture
from vllm_circus.plan.fit.setup import read_setup
from vllm_circus.plan.fit.verdict import Case, Verdict, free_memory
from vllm_circus.plan.fit.weights import Weights
from vllm_circus.plan.memory import USUAL_SHARE

_SHORTEST = 2048  # tokens: with less nobody would serve it


@dataclass(frozen=True)
class Room:
    """Where a model has room.

    Attributes:
        gpus: the GPUs, by index; empty where it has room nowhere on this machine.
        context: the longest one there, in tokens; None for all that it was made for.
        now: it has room as the GPUs are used now; else only when others give theirs back.
    """

    gpus: tuple[int, ...] = ()
    context: int | None = None
    now: bool = False


def room_for(model: LocalModel, cards: Sequence[Gpu]) -> Room | None:
    """The fewest GPUs that have room for it; None where nobody can say: no GPU, a part that is missing, an adapter."""
    usable = [card for card in cards if card.memory_total and not card.fault]
    if not usable or not model.complete or not model.weights or not model.config or model.kind == "adapter":
        return None
    try:
        architecture = read_architecture(model.config)
        tried = [_tried(model, architecture, chosen) for chosen in _choices(usable, architecture.heads)]
    except CircusError:
        return None
    found = [room for room in tried if room is not None]
    return min(found, key=lambda room: (not room.now, room.context is not None), default=Room())


def _choices(cards: Sequence[Gpu], heads: int) -> Iterator[tuple[Gpu, ...]]:
    """One card, or twice as many each time, those with the most free memory; as many as its heads go among."""
    ordered = sorted(cards, key=lambda card: (-(free_memory(card) or 0), card.index))
    yield from ((card,) for card in ordered)
    count = 2
    while count <= len(ordered) and heads and heads % count == 0:
        yield tuple(ordered[:count])
        count *= 2


def _tried(model: LocalModel, architecture: Architecture, cards: tuple[Gpu, ...]) -> Room | None:
    """What these cards have room for; None for nothing."""
    smallest = min(cards, key=lambda card: card.memory_total or 0)
    setup = read_setup({"tensor-parallel-size": len(cards)}, smallest.memory_total or 0, smallest.name)
    weights = Weights(model.weights, "the files' sizes")
    verdict = Verdict(Case(architecture, weights, setup, cards, USUAL_SHARE))
    shorter = not verdict.fits
    if shorter and (verdict.room < 0 or verdict.longest < min(_SHORTEST, architecture.context)):
        return None
    gpus = tuple(sorted(card.index for card in cards))
    return Room(gpus, verdict.longest if shorter else None, now=not verdict.busy)
