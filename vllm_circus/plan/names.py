"""Names that clients may ask for: each leads to one model. And those of replicas, which only commands and logs use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from vllm_circus.config.models import RESERVED_NAMES
from vllm_circus.config.places import Place, did_you_mean, show_place, show_value
from vllm_circus.plan.draft import Draft, Notes, replica_name


def names_of(draft: Draft) -> tuple[str, ...]:
    """Everything that one model answers to: its name, its aliases, its adapters."""
    return tuple(name for name, _ in _named(draft))


def check_names(drafts: tuple[Draft, ...], notes: Notes) -> None:
    """Note names that stand twice, names that commands use for something else, and an unknown default model."""
    seen: dict[str, Place] = {draft.group: draft.at("name") for draft in reversed(drafts)}  # names win over aliases
    for draft in drafts:
        if draft.group in RESERVED_NAMES:
            message = f"{draft.group!r} is a name that commands and logs use"
            notes.fault(draft.at("name"), message, "choose another name")
        for name, place in _named(draft):
            first = seen.setdefault(name, place)
            if first != place:
                where = f"{show_place(first)} (line {notes.loaded.line(first)})"
                notes.fault(place, f"{name!r} is also {where}", "every name, alias and adapter must differ")
    _check_replicas(drafts, seen, notes)
    wanted = notes.loaded.config.proxy.default_model
    if wanted is not None and wanted not in seen:
        fix = did_you_mean(wanted, seen) or f"names are {', '.join(list(seen)[:20])}"
        notes.fault(("proxy", "default_model"), f"no model is called {show_value(wanted)}", fix)


def _check_replicas(drafts: tuple[Draft, ...], seen: Mapping[str, Place], notes: Notes) -> None:
    """Note names that one of the engines of a model with replicas has already."""
    for draft in drafts:
        count = draft.own.replicas
        for name in [replica_name(draft.group, number) for number in range(1, count + 1)] if count > 1 else ():
            if name in seen:
                line = notes.loaded.line(draft.at("name"))
                message = f"{name!r} is what a replica of {draft.group!r} (line {line}) is called"
                notes.fault(seen[name], message, "choose another name")


def _named(draft: Draft) -> Iterator[tuple[str, Place]]:
    yield draft.group, draft.at("name")
    for position, alias in enumerate(draft.own.aliases):
        yield alias, draft.at("aliases", position)
    for position, adapter in enumerate(draft.own.lora):
        yield adapter.name, draft.at("lora", position, "name")
