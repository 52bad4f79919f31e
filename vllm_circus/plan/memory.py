"""What part of its GPUs an engine takes: `gpu_memory` as vLLM's `gpu-memory-utilization`.

Rules: vLLM takes one fraction for all of an engine's GPUs, so that the smallest of them decides what an amount comes
to. `gpu_memory` wins over what profiles and `defaults` say to vLLM; against the model's own `args` it is a fault, since
nobody can tell which of the two was meant.
"""

from __future__ import annotations

from math import floor
from typing import Any

from vllm_circus.gpu import Gpu
from vllm_circus.plan.draft import Draft, Notes
from vllm_circus.plan.options import Merged

#: The part of each GPU that vLLM takes where nobody says anything: `CacheConfig.gpu_memory_utilization` of vLLM 0.32.
USUAL_SHARE = 0.92
GIB = 1 << 30

_FLAG = "gpu-memory-utilization"
_FIXED = "kv-cache-memory-bytes"


def share_of(draft: Draft, gpus: tuple[Gpu, ...] | None, notes: Notes) -> float | None:
    """What `gpu_memory` comes to on this engine's GPUs, 0 to 1; None where nothing is written, or nobody can tell.

    `gpus` are the machine's, None without a driver. An amount that cannot be turned into a part is noted.
    """
    written = draft.model.gpu_memory
    if written is None or draft.gpus == ():
        return None
    if isinstance(written, float):
        return written
    wanted, place = round(float(written.removesuffix("GiB")) * GIB), draft.at("gpu_memory")
    cards = [gpu for gpu in gpus or () if draft.gpus is None or gpu.index in draft.gpus]
    if gpus is not None and len(cards) < len(draft.gpus or ()):
        return None  # that one of them does not exist is told already
    smallest = min(filter(_size, cards), key=_size, default=None)
    if smallest is None:
        _tell_unknown(draft, written, notes)
        return None
    if not 0 < wanted <= _size(smallest):
        size = f"GPU {smallest.index} has {_size(smallest) / GIB:.1f} GiB"
        notes.fault(place, f"{written} is no part of it: {size}", "write an amount up to that, or a fraction")
        return None
    return max(floor(wanted / _size(smallest) * 10_000), 1) / 10_000


def _size(gpu: Gpu) -> int:
    """Bytes; 0 where the card does not tell."""
    return gpu.memory_total or 0


def _tell_unknown(draft: Draft, written: str, notes: Notes) -> None:
    message = f"nobody tells how large the GPUs are, so that {written} of them cannot be turned into a part"
    if draft.model.engine == "vllm":
        notes.lack(draft.at("gpu_memory"), message, "write a fraction, e.g. 0.4")
    else:
        notes.warn(draft.at("gpu_memory"), f"{message}, and nothing is added up")


def with_share(draft: Draft, options: Merged, share: float | None, notes: Notes) -> Merged:
    """The options with the engine's share of its GPUs, where there is one; contradictions are noted."""
    if draft.model.gpu_memory is None or draft.command is not None:
        return options
    place = draft.at("gpu_memory")
    if draft.gpus == ():
        if "gpu_memory" in draft.own.model_fields_set:
            notes.warn(place, "does nothing: `gpus: []` serves from the CPU")
        return options
    written = {flag: at for flag, (_, at) in options.items() if is_utilization(flag)}
    for at in written.values():
        if at[:2] == ("models", draft.index) or (at[0] == place[0] == "defaults"):
            line = notes.loaded.line(place)
            fix = "keep one of the two; null takes an inherited one away"
            notes.fault(at, f"`gpu_memory` (line {line}) says what this says", fix)
    if _FIXED in options:
        notes.warn(options[_FIXED][1], "vLLM takes this for its cache, whatever `gpu_memory` says")
    if share is None:
        return options
    return {flag: entry for flag, entry in options.items() if flag not in written} | {_FLAG: (share, place)}


def is_utilization(flag: str) -> bool:
    """Whether an option by its canonical name is vLLM's share, which may be abbreviated."""
    return _FLAG.startswith(flag) and flag.startswith("gpu")


def written_share(options: Merged) -> float | None:
    """What the options say themselves, 0 to 1; None where they say nothing (or nothing usable)."""
    value: Any = next(
        (value for flag, (value, _) in options.items() if _FLAG.startswith(flag) and "-mem" in flag), None
    )
    try:
        share = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else 0.0
    except ValueError:
        return None
    return share if 0 < share <= 1 else None
