"""Models that are not always awake: sleep mode, idleness, starts on demand, and turns on a GPU.

Rules: `sleep` turns on vLLM's sleep mode, and the development routes without which nobody can send it to sleep; they
are behind a unix socket of ours. Options that contradict each other are faults, those that do nothing are told of.
"""

from __future__ import annotations

from vllm_circus.config.places import Place
from vllm_circus.plan import environment as env
from vllm_circus.plan.draft import Draft, Notes
from vllm_circus.plan.options import Merged

_FLAG = "enable-sleep-mode"
_ROUTES = "VLLM_SERVER_DEV_MODE"


def check_resting(drafts: tuple[Draft, ...], notes: Notes) -> None:
    """Note contradictions among `sleep`, `idle`, `on_demand`, `exclusive` and the engine."""
    for draft in drafts:
        _check_sleep(draft, notes)
        _check_idle(draft, notes)
        if draft.model.on_demand and not draft.model.enabled and "on_demand" in draft.own.model_fields_set:
            notes.warn(draft.at("on_demand"), "does nothing: with `enabled: false` no request starts it")
    _check_turns(drafts, notes)


def _check_sleep(draft: Draft, notes: Notes) -> None:
    if draft.model.sleep and draft.command is not None:
        place = draft.at("sleep")
        own = place if place[0] == "models" else draft.at("engine")
        fix = "write `sleep: false` for it; `idle: {then: stop}` gives its memory back"
        notes.fault(own, "a command of your own has no sleep mode that this program could use", fix)


def _check_idle(draft: Draft, notes: Notes) -> None:
    idle, place = draft.model.idle, draft.at("idle")
    own = draft.own.idle.model_fields_set if "idle" in draft.own.model_fields_set else set()
    if idle.after is not None and idle.then == "sleep" and not draft.model.sleep:
        fix = "write `sleep: true`, or `then: stop`"
        notes.fault(place, f"{draft.group!r} is to sleep, but its engine has no sleep mode", fix)
    if idle.after is None and own & {"then", "level"}:
        notes.warn(place, "does nothing without `after`")


def _check_turns(drafts: tuple[Draft, ...], notes: Notes) -> None:
    members: dict[str, list[Draft]] = {}
    for draft in drafts:
        if draft.model.exclusive is not None:
            members.setdefault(draft.model.exclusive, []).append(draft)
            if draft.own.replicas > 1:
                fix = "write `replicas: 1`, or leave `exclusive` away"
                notes.fault(_turns(draft), "replicas are there to be awake side by side, and take no turns", fix)
    for name, found in members.items():
        if len(found) == 1:
            notes.warn(_turns(found[0]), f"nobody else has {name!r}, so that there is nobody to take turns with")
        for draft in found[1:]:
            if not _share(found[0], draft):
                other = f"{found[0].group!r} (line {notes.loaded.line(found[0].at('gpus'))})"
                notes.warn(_turns(draft), f"{draft.group!r} and {other} take turns, though they share no GPU")


def _turns(draft: Draft) -> Place:
    return draft.at("exclusive")


def _share(one: Draft, other: Draft) -> bool:
    """Whether two models have a GPU in common; those that are pinned nowhere may be anywhere."""
    if one.own.gpus is None or other.own.gpus is None or one.own.gpus == other.own.gpus:
        return True
    return not set(one.own.gpus).isdisjoint(other.own.gpus)


def with_sleep(draft: Draft, options: Merged, notes: Notes) -> Merged:
    """The options with vLLM's sleep mode where the model may sleep; contradictions are noted."""
    if draft.command is not None:
        return options
    written = options.get(_FLAG)
    if not draft.model.sleep:
        if written is not None and written[0] is True:
            notes.warn(written[1], "nobody sends it to sleep; write `sleep: true`, and leave this away")
        return options
    if written is not None and written[0] is False:
        line = notes.loaded.line(draft.at("sleep"))
        notes.fault(written[1], f"says no to what `sleep` (line {line}) wants", "keep one of the two")
    if draft.gpus == () and draft.model.engine == "vllm":
        notes.warn(draft.at("sleep"), "frees no memory: vLLM's sleep mode is for GPUs, and `gpus: []` is none")
        return {flag: entry for flag, entry in options.items() if flag != _FLAG}
    return options | {_FLAG: (True, draft.at("sleep"))}


def sleep_environment(draft: Draft, written: dict[str, str], notes: Notes) -> dict[str, str]:
    """The variable that opens the routes for sleeping; one that was written to keep them shut is noted."""
    if not draft.model.sleep or draft.command is not None:
        return {}
    if _ROUTES in written and not env.dev_mode(written):
        place = next((*layer.place, _ROUTES) for layer in reversed(draft.env_layers()) if _ROUTES in layer.values)
        line = notes.loaded.line(draft.at("sleep"))
        notes.fault(place, f"shuts the routes that `sleep` (line {line}) needs", "keep one of the two")
    return {_ROUTES: "1"}
