"""GPUs: that those which a model names exist, each once."""

from __future__ import annotations

from vllm_circus.gpu import Gpu
from vllm_circus.plan.draft import Draft, Notes

#: The warning where no driver tells which GPUs there are.
UNCHECKED = "no GPU driver was found, so GPU indices could not be checked"


def check_gpus(drafts: tuple[Draft, ...], gpus: tuple[Gpu, ...] | None, notes: Notes) -> None:
    """Note indices that do not exist or stand twice. `gpus` None: nobody knows."""
    known = {gpu.index for gpu in gpus} if gpus is not None else None
    for draft in drafts:
        for position, index in enumerate(draft.own.gpus or ()):
            place = draft.at("gpus", position)
            if index in (draft.own.gpus or ())[:position]:
                notes.fault(place, f"GPU {index} stands twice", "write each index once")
            elif known is not None and index not in known:
                notes.lack(place, f"there is no GPU {index}", _existing(known))
    if known is None and any(draft.model.enabled and draft.own.gpus for draft in drafts):
        notes.warn((), UNCHECKED)


def _existing(known: set[int]) -> str:
    if not known:
        return "this machine has no GPU; `gpus: []` serves from the CPU"
    return f"this machine has {', '.join(map(str, sorted(known)))}; see `vllm-circus gpus`"
