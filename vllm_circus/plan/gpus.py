"""GPUs: which exist, and that no two enabled models want the same one.

Rule of this version: one GPU serves one engine; an engine may have several. A model's replicas share out its list, so
that looking at the models is enough.
"""

from __future__ import annotations

from vllm_circus.gpu import Gpu
from vllm_circus.plan.draft import Draft, Notes


def check_gpus(drafts: tuple[Draft, ...], gpus: tuple[Gpu, ...] | None, notes: Notes) -> None:
    """Note indices that do not exist, stand twice, or belong to two enabled models. `gpus` None: nobody knows."""
    known = {gpu.index for gpu in gpus} if gpus is not None else None
    owners: dict[int, Draft] = {}
    for draft in drafts:
        for position, index in enumerate(draft.own.gpus or ()):
            place = draft.at("gpus", position)
            if index in (draft.own.gpus or ())[:position]:
                notes.fault(place, f"GPU {index} stands twice", "write each index once")
                continue
            if known is not None and index not in known:
                notes.fault(place, f"there is no GPU {index}", _existing(known))
            if not draft.model.enabled:
                continue
            owner = owners.setdefault(index, draft)
            if owner is not draft:
                line = notes.loaded.line(owner.at("gpus"))
                notes.fault(
                    place,
                    f"GPU {index} already belongs to {owner.name!r} (line {line})",
                    "give each model GPUs of its own, or set `enabled: false` for one",
                )
    if known is None and owners:
        notes.warn((), "no GPU driver was found, so GPU indices could not be checked")


def _existing(known: set[int]) -> str:
    if not known:
        return "this machine has no GPU; `gpus: []` serves from the CPU"
    return f"this machine has {', '.join(map(str, sorted(known)))}; see `vllm-circus gpus`"
