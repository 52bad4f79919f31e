"""How a model is spread over its GPUs.

The GPU list decides. Sizes from a profile or from `defaults` hold only where they fit the number of GPUs; sizes that
the model's own `args` set are the operator's word: they are kept, and refused where they cannot fit.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from vllm_circus.config.places import Place, show_value
from vllm_circus.plan.draft import Draft, Notes
from vllm_circus.plan.options import Merged

TENSOR = "tensor-parallel-size"
#: Options whose product is the number of GPUs that an engine takes.
SIZES = (TENSOR, "pipeline-parallel-size", "data-parallel-size", "prefill-context-parallel-size")
OVERRIDE = "GPU selection overrides profile parallelism settings"


@dataclass(frozen=True)
class _Sizes:
    """The parallel sizes of one origin."""

    values: dict[str, int]
    place: Place | None

    @property
    def product(self) -> int:
        return prod(self.values.values())

    def __str__(self) -> str:
        return ", ".join(f"{flag} {size}" for flag, size in self.values.items())


def spread(draft: Draft, options: Merged, notes: Notes) -> Merged:
    """The options with the parallel sizes that follow from the model's GPUs; without a GPU list they stay."""
    gpus = draft.gpus
    if not gpus or draft.command is not None:
        return options
    base = ("models", draft.index)
    own = _sizes({flag: entry for flag, entry in options.items() if entry[1][:2] == base}, notes)
    inherited = _sizes({flag: entry for flag, entry in options.items() if entry[1][:2] != base}, notes)
    if own.values:
        return _keep_own(draft, options, own, inherited, notes)
    if inherited.product == len(gpus):
        return options
    result = _without(options, inherited)
    if len(gpus) > 1:
        result[TENSOR] = (len(gpus), draft.at("gpus"))
    if inherited.values:
        _warn(draft, inherited, len(gpus), notes)
    return result


def _keep_own(draft: Draft, options: Merged, own: _Sizes, inherited: _Sizes, notes: Notes) -> Merged:
    """The model's own sizes stand; tensor parallelism fills what they leave where the model does not set it."""
    count = len(draft.gpus or ())
    place = own.place or draft.at("args")
    result = _without(options, inherited)
    fills = TENSOR not in own.values and count % own.product == 0
    if fills and count > own.product:
        result[TENSOR] = (count // own.product, draft.at("gpus"))
    elif own.product > count or not (fills or TENSOR in own.values):
        fix = f"list {own.product * draft.own.replicas} GPUs, or remove the sizes: they follow from `gpus`"
        has = f"`gpus` lists {count}" if draft.replica is None else f"each replica has {count}"
        notes.fault(place, f"{own} needs {own.product} GPUs, {has}", fix)
    elif own.product < count:
        whose = "" if draft.replica is None else " of each replica"
        notes.warn(place, f"{own} uses {own.product} of the {count} GPUs{whose}")
    if inherited.values:
        _warn(draft, inherited, count, notes)
    return result


def _sizes(options: Merged, notes: Notes) -> _Sizes:
    """The parallel sizes among the options."""
    values: dict[str, int] = {}
    first: Place | None = None
    for flag in SIZES:
        if flag not in options:
            continue
        value, place = options[flag]
        size = int(value) if str(value).isdecimal() and len(str(value)) < 7 else 0
        if size < 1:
            notes.fault(place, f"needs a whole number from 1, not {show_value(value)}")
            continue
        values[flag] = size
        first = first or place
    return _Sizes(values, first)


def _without(options: Merged, sizes: _Sizes) -> Merged:
    return {flag: entry for flag, entry in options.items() if flag not in sizes.values}


def _warn(draft: Draft, dropped: _Sizes, count: int, notes: Notes) -> None:
    """Sizes of 1 are what nobody misses."""
    if dropped.product > 1:
        gpus = f"{count} GPU" + "s" * (count != 1)
        owner = "the model" if draft.replica is None else "each replica"
        notes.warn(draft.at("gpus"), f"{OVERRIDE}: {dropped} is dropped, {owner} has {gpus}")
