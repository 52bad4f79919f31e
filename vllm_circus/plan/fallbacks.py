"""Models that answer for others while those cannot.

Rules: a request goes on to one fallback and never to the fallback's own. No body is rewritten for it, so an engine
serves the names and aliases of whoever falls back on it, behind its own; adapters are not taken over, since it does
not have them.
"""

from __future__ import annotations

from vllm_circus.config.places import did_you_mean, show_place
from vllm_circus.plan.draft import Draft, Notes


def check_fallbacks(drafts: tuple[Draft, ...], notes: Notes) -> None:
    """Note fallbacks that are no model of the file or the model itself, and what the operator has to see to."""
    groups = {draft.group: draft for draft in drafts}
    for draft in drafts:
        wanted, place = draft.own.fallback, draft.at("fallback")
        if wanted is None:
            continue
        if wanted == draft.group:
            notes.fault(place, "a model cannot stand in for itself", "name another model, or write `replicas: 2`")
        elif wanted not in groups:
            notes.fault(place, f"no model is called {wanted!r}", _meant(wanted, drafts, notes))
        else:
            _tell(draft, groups[wanted], notes)


def taken_over(drafts: tuple[Draft, ...]) -> dict[str, tuple[str, ...]]:
    """The names of others that each model's engines have to serve as well, in the file's order."""
    names: dict[str, tuple[str, ...]] = {}
    for draft in drafts:
        if draft.own.fallback is not None:
            before = names.get(draft.own.fallback, ())
            names[draft.own.fallback] = (*before, draft.group, *draft.own.aliases)
    return names


def _meant(wanted: str, drafts: tuple[Draft, ...], notes: Notes) -> str:
    for draft in drafts:
        if wanted in {*draft.own.aliases, *(lora.name for lora in draft.own.lora)}:
            at = f"{show_place(draft.at())}, line {notes.loaded.line(draft.at())}"
            return f"that is another name of {draft.group!r} ({at}): write the model's own"
    names = tuple(dict.fromkeys(draft.group for draft in drafts))
    return did_you_mean(wanted, names) or f"models are {', '.join(names[:20])}"


def _tell(draft: Draft, fallback: Draft, notes: Notes) -> None:
    place = draft.at("fallback")
    if fallback.command is not None:
        names = ", ".join(map(repr, (draft.group, *draft.own.aliases)))
        notes.warn(place, f"{fallback.group!r} is a command of your own: it has to answer requests for {names} as well")
    if draft.model.enabled and not fallback.model.enabled:
        notes.warn(place, f"{fallback.group!r} is not started with the set, so that nobody stands in by itself")
