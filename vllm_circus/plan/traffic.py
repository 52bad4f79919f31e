"""How requests reach a model: affinity, limits, the queue, and what is changed in them."""

from __future__ import annotations

from vllm_circus.config.models import HeaderAffinity, ModelOptions
from vllm_circus.config.places import Place
from vllm_circus.plan.draft import Draft, Notes
from vllm_circus.plan.types import PREFIX

_CONTENT = "it is what the client asks"
#: Members that no rule may touch, and why.
_UNTOUCHED = {
    "model": "it chooses the model, and has done so by then; write `aliases` or `fallback`",
    "messages": _CONTENT,
    "prompt": _CONTENT,
    "input": _CONTENT,
    "stream": "the client reads the answer in the form that it asked for",
    "stream_options": "write `proxy.exact_usage: true` to have tokens counted",
}


def affinity_of(model: ModelOptions) -> str | None:
    """A header's name in lower case, `PREFIX`, or None."""
    if isinstance(model.affinity, HeaderAffinity):
        return model.affinity.header.lower()
    return PREFIX if model.affinity == "prefix" else None


def check_traffic(drafts: tuple[Draft, ...], notes: Notes) -> None:
    """Note rules for requests that cannot be, and options that do nothing or less than they seem to."""
    for draft in drafts:
        _check_rules(draft, notes)
        _check_limit(draft, notes)
    _check_affinity(drafts, notes)


def _check_rules(draft: Draft, notes: Notes) -> None:
    rules = draft.model.request
    for part, members in (("defaults", rules.defaults), ("limits", rules.limits)):
        for member in members:
            if member in _UNTOUCHED:
                place = _rule(draft, part, member)
                notes.fault(place, f"{member!r} cannot be changed: {_UNTOUCHED[member]}", "remove it")
    for member, limit in rules.limits.items():
        value = rules.defaults.get(member)
        if isinstance(value, int | float) and not isinstance(value, bool) and value > limit:
            notes.warn(_rule(draft, "defaults", member), f"{value:g} is more than the limit {limit:g}, which holds")


def _rule(draft: Draft, part: str, member: str) -> Place:
    """Where a rule stands: each part of `request` may be the model's own or come from `defaults`."""
    own = "request" in draft.own.model_fields_set and part in draft.own.request.model_fields_set
    holder: Place = ("models", draft.index) if own else ("defaults",)
    return (*holder, "request", part, member)


def _check_limit(draft: Draft, notes: Notes) -> None:
    workers, limit = notes.loaded.config.proxy.workers, draft.model.max_in_flight
    if limit is not None and limit < workers:
        message = f"{limit} is less than one for each of the {workers} workers: up to {workers} may be in flight"
        notes.warn(draft.at("max_in_flight"), message)
    own = draft.own.queue.model_fields_set if "queue" in draft.own.model_fields_set else set()
    if limit is None and "timeout" in own:
        message = "does nothing without `max_in_flight`; how long requests wait for a model on its way is `hold`"
        notes.warn(draft.at("queue", "timeout"), message)


def _check_affinity(drafts: tuple[Draft, ...], notes: Notes) -> None:
    """Tell of affinity where there is nothing to choose from; what `defaults` say need not fit every model."""
    for draft in drafts:
        if "affinity" in draft.own.model_fields_set and draft.own.affinity is not None and draft.own.replicas == 1:
            notes.warn(draft.at("affinity"), "does nothing without `replicas`: there is one engine to choose")
    default = drafts[0].defaults.affinity if drafts else None
    if default is not None and all(draft.own.replicas == 1 for draft in drafts):
        notes.warn(("defaults", "affinity"), "does nothing, since no model has `replicas`")
