"""Who shares a GPU with whom: the sum of what is promised of each card.

Rules: engines share a GPU where each of them has a `gpu_memory`, or where they take turns on it (one `exclusive` name).
Of those that take turns one is awake at a time, so that they count as the largest of them and what the others keep
asleep. Everything else that is started with the set counts fully, `on_demand` included: it may be awake at any time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from vllm_circus.gpu import Gpu
from vllm_circus.plan.draft import Draft, Notes
from vllm_circus.plan.memory import GIB, USUAL_SHARE

#: What an engine in sleep mode still has on each of its GPUs, in bytes: CUDA's context and the captured graphs, which
#: the sleeping allocator does not hold. Level 1 and 2 differ in the machine's memory alone.
ASLEEP = GIB
#: Sums above this are told of: each engine's CUDA context (about half a GiB) is outside of its share.
ROOM = 0.95


@dataclass(frozen=True)
class Holding:
    """One model's part of one GPU. `share` is 0 to 1, None where nobody can tell; `kept` is that while it sleeps."""

    draft: Draft
    share: float | None
    kept: float

    @property
    def stated(self) -> bool:
        """Whether the operator said how much it may take."""
        return self.draft.model.gpu_memory is not None

    @property
    def unit(self) -> str | int:
        """Those that take turns are one."""
        return self.draft.model.exclusive or self.draft.index


def check_ledger(
    engines: Iterable[Draft], shares: Mapping[str, float | None], gpus: tuple[Gpu, ...] | None, notes: Notes
) -> None:
    """Note GPUs that are wanted by models that cannot share them, or of which more is promised than there is.

    `shares` are the engines' by their name, None where nothing is written or nobody can tell what it comes to.
    """
    sizes = {gpu.index: gpu.memory_total for gpu in gpus or ()}
    holders: dict[int, list[Holding]] = {}
    for engine in engines:
        for index in dict.fromkeys(engine.gpus or ()) if engine.model.enabled else ():
            size = sizes.get(index)
            kept = ASLEEP / size if size and engine.model.sleep and engine.command is None else 0.0
            share = shares[engine.name] or (None if engine.model.gpu_memory else USUAL_SHARE)
            holders.setdefault(index, []).append(Holding(engine, share, kept))
    alike: dict[tuple[tuple[str, float], ...], list[int]] = {}
    for index in sorted(holders):
        found = holders[index]
        if not _contested(index, found, notes) and len(found) > 1:
            alike.setdefault(tuple((one.draft.name, one.kept) for one in found), []).append(index)
    for indices in alike.values():
        _check_sum(indices, holders[indices[0]], notes)


def _contested(index: int, found: list[Holding], notes: Notes) -> bool:
    """Whether one of the holders cannot share: note it for each model that came later."""
    contested = False
    for position, holding in enumerate(found):
        owner = next((other for other in found[:position] if other.unit != holding.unit), None)
        if owner is None or (owner.stated and holding.stated):
            continue
        contested = True
        place = holding.draft.at("gpus", (holding.draft.own.gpus or ()).index(index))
        line = notes.loaded.line(owner.draft.at("gpus"))
        silent = " and ".join(repr(one.draft.group) for one in (owner, holding) if not one.stated)
        notes.fault(
            place,
            f"GPU {index} already belongs to {owner.draft.group!r} (line {line})",
            f"give each model GPUs of its own; or write `gpu_memory` for {silent}, so that they share it; or one "
            "`exclusive` name for both, so that they take turns; or `enabled: false` for one",
        )
    return contested


def _check_sum(indices: list[int], found: list[Holding], notes: Notes) -> None:
    """Note what is promised of these GPUs, which have the same holders, if it is too much."""
    units: dict[str | int, list[Holding]] = {}
    for holding in found:
        units.setdefault(holding.unit, []).append(holding)
    if any(holding.share is None for holding in found):
        return
    total = round(sum(map(_most, units.values())), 4)
    if total <= ROOM:
        return
    cards = ("GPU " if len(indices) == 1 else "GPUs ") + ", ".join(map(str, indices))
    parts = ", ".join(_words(unit, notes) for unit in units.values())
    place = max((holding.draft.at("gpu_memory") for holding in found), key=notes.loaded.line)
    if total > 1:
        away = f"take {round(total - 1, 4):g} away from them"
        fix = f"{away}, give one another GPU, or let some take turns (one `exclusive` name)"
        notes.fault(place, f"{cards}: {total:g} of the memory is promised: {parts}", fix)
    else:
        why = "each engine takes about half a GiB beside its share"
        notes.warn(place, f"{cards}: {total:g} of the memory is promised: {parts}; {why}, so leave 0.05")


def _most(unit: list[Holding]) -> float:
    """The most that those of one unit have at a time, whoever of them is awake."""
    kept = sum(holding.kept for holding in unit)
    return max((holding.share or 0.0) + kept - holding.kept for holding in unit)


def _words(unit: list[Holding], notes: Notes) -> str:
    """`'a' (line 3) 0.4`, or those that take turns with `or` between them."""
    words = " or ".join(
        f"{one.draft.group!r} (line {notes.loaded.line(one.draft.at('gpu_memory'))}) {one.share or 0:g}" for one in unit
    )
    asleep = _most(unit) - max(one.share or 0.0 for one in unit)
    return words if asleep <= 0 else f"{words}, and {round(asleep, 4):g} for what sleeps"
