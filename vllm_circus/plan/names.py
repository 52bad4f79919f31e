"""Names that clients may ask for: each leads to one model."""

from __future__ import annotations

from collections.abc import Iterator

from vllm_circus.config.models import RESERVED_NAMES
from vllm_circus.config.places import Place, did_you_mean, show_place, show_value
from vllm_circus.plan.draft import Draft, Notes


def names_of(draft: Draft) -> tuple[str, ...]:
    """Everything that one model answers to: its name, its aliases, its adapters."""
    return tuple(name for name, _ in _named(draft))


def check_names(drafts: tuple[Draft, ...], notes: Notes) -> None:
    """Note names that stand twice, names that commands use for something else, and an unknown default model."""
    seen: dict[str, Place] = {draft.name: draft.at("name") for draft in reversed(drafts)}  # names win over aliases
    for draft in drafts:
        if draft.name in RESERVED_NAMES:
            notes.fault(draft.at("name"), f"{draft.name!r} is a name that commands and logs use", "choose another name")
        for name, place in _named(draft):
            first = seen.setdefault(name, place)
            if first != place:
                where = f"{show_place(first)} (line {notes.loaded.line(first)})"
                notes.fault(place, f"{name!r} is also {where}", "every name, alias and adapter must differ")
    wanted = notes.loaded.config.proxy.default_model
    if wanted is not None and wanted not in seen:
        fix = did_you_mean(wanted, seen) or f"names are {', '.join(list(seen)[:20])}"
        notes.fault(("proxy", "default_model"), f"no model is called {show_value(wanted)}", fix)


def _named(draft: Draft) -> Iterator[tuple[str, Place]]:
    yield draft.name, draft.at("name")
    for position, alias in enumerate(draft.own.aliases):
        yield alias, draft.at("aliases", position)
    for position, adapter in enumerate(draft.own.lora):
        yield adapter.name, draft.at("lora", position, "name")
