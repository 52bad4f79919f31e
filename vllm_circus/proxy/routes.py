"""Which model answers to which name, and whether it can now. Pure.

Rules: a table is made whole from the plan and the latest states, and never changed; the next snapshot makes another
one. A model whose state nobody tells is routable, so the proxy serves while every plugin is dead; what it then finds
at the endpoint decides. A model with replicas is spoken of as one: it is ready if any of them is, else what is said is
the state of the one that is nearest to that, and the shortest of the times in which one is expected. Whether requests
may wait for an engine is the health plugin's word, too: it says which ones are on their way or on call.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from vllm_circus.bus.messages import ModelsMessage, ModelState
from vllm_circus.lifecycle.states import State
from vllm_circus.plan.types import Plan
from vllm_circus.proxy.errors import Refused, missing_model, not_ready, unknown_model

#: What a client is told about a model that takes no requests: "The model `NAME` …".
WORDS: Mapping[State, str] = {
    State.STOPPED: "is stopped",
    State.QUEUED: "waits for its turn to be started",
    State.LOADING: "is loading",
    State.READY: "is ready",
    State.UNHEALTHY: "does not answer at the moment",
    State.DRAINING: "is being stopped",
    State.STOPPING: "is being stopped",
    State.BACKOFF: "has crashed and will be started again",
    State.FAILED: "has failed and will not be started again by itself",
    State.SLEEPING: "is asleep",
    State.WAKING: "is waking up",
}
#: The states of a model's replicas, those first in which it serves or soon will.
_NEAREST = (
    *(State.READY, State.LOADING, State.QUEUED, State.UNHEALTHY, State.BACKOFF),
    *(State.WAKING, State.SLEEPING, State.DRAINING, State.STOPPING, State.STOPPED, State.FAILED),
)
_ENDING = frozenset({State.DRAINING, State.STOPPING})
#: Where no process is, nor will be by itself: what such an engine had stored is gone.
_ENDED = frozenset({State.STOPPED, State.FAILED})
#: Seconds to come again after, where the health plugin does not know better.
SOON, LATER = 5, 60
#: Seconds without a snapshot after which its states are no longer believed.
STALE = 10.0


@dataclass(frozen=True)
class Route:
    """What a name leads to: a model of the file, with all its replicas. `refusal` says why none takes requests."""

    group: str
    refusal: Refused | None


@dataclass(frozen=True)
class Away:
    """Why an engine takes no requests.

    Attributes:
        words: what follows its model's name in a sentence.
        reason: what the health plugin knows beyond that, or empty.
        retry_after: whole seconds after which another try makes sense, at least one: RFC 9110, section 10.2.3.
        is_ended: nothing that it had stored is there any more.
        hope: 0 where no request is to wait for it; else they may, and of several engines the one with the most is to be
            asked for: it is on its way already, or it wakes up sooner.
    """

    words: str
    reason: str
    retry_after: int
    is_ended: bool = False
    hope: int = 0


@dataclass(frozen=True)
class Table:
    """Every name that a client may use, and what each model can do now.

    Attributes:
        default: what a request means that names no model.
        away: the replicas that take no requests.
        refusals: by model, why none of its replicas takes one.
        known: the names that replicas answer to which do not answer to all that the plan has.
        sequence: that of the snapshot it was made from, 0 for none.
    """

    names: Mapping[str, Route]
    default: Route | None
    away: Mapping[str, Away]
    refusals: Mapping[str, Refused]
    known: Mapping[str, frozenset[str]]
    sequence: int

    def find(self, name: str | None) -> Route:
        """The route of a name; None asks for the default. Raises Refused where there is no such model."""
        if name is None:
            if self.default is None:
                raise missing_model()
            return self.default
        route = self.names.get(name)
        if route is None:
            raise unknown_model(name)
        return route


def make_table(plan: Plan, message: ModelsMessage | None, *, believed: bool = True) -> Table:
    """The table for these states; with `believed` False the states are too old, and every model is tried."""
    states = {state.name: state for state in message.models} if message and believed else {}
    members = plan.replicas()
    away: dict[str, Away] = {}
    refusals: dict[str, Refused] = {}
    for group, models in members.items():
        told = [state for model in models if (state := states.get(model.name)) and not state.state.routable]
        away.update((state.name, _away(state)) for state in told)
        if len(told) == len(models):
            refusals[group] = _refusal(group, told)
    names = {name: Route(model.group, refusals.get(model.group)) for model in plan.models for name in model.names}
    default = plan.proxy.default_model
    if default is None and len(members) == 1:
        default = next(iter(members))
    found = names.get(default) if default else None
    known = {name: frozenset(state.names) for name, state in states.items() if state.names}
    return Table(names, found, away, refusals, known, message.sequence if message else 0)


def nearest(states: Iterable[ModelState]) -> ModelState | None:
    """The state of the replica that serves or is nearest to it; None where nothing is known of any."""
    return min(states, key=_distance, default=None)


def _distance(state: ModelState) -> tuple[int, float]:
    return _NEAREST.index(state.state), math.inf if state.retry_after is None else state.retry_after


def _refusal(group: str, states: Sequence[ModelState]) -> Refused:
    """What is said of a model that has these replicas, none of which takes requests."""
    best = _away(min(states, key=_distance))
    expected = [state for state in states if state.state.coming or _hope(state) or state.retry_after is not None]
    return not_ready(group, best.words, best.reason, min(map(_retry_after, expected or states)))


def _away(state: ModelState) -> Away:
    said = state.reason or (state.phase if state.state is State.LOADING else "")
    said = f"{said}; {state.fix}" if said and state.fix else said
    return Away(_words(state), said, _retry_after(state), is_ended=state.state in _ENDED, hope=_hope(state))


def _words(state: ModelState) -> str:
    if state.awaited and state.state in _ENDING:
        return "is being restarted"
    if state.on_call and state.state is State.STOPPED:
        return "rests until it is asked for"
    return WORDS[state.state]


def _hope(state: ModelState) -> int:
    if state.awaited:
        return 3
    return 2 if state.state is State.SLEEPING else int(state.on_call)


def _retry_after(state: ModelState) -> int:
    if state.retry_after is not None:
        return max(1, min(math.ceil(state.retry_after), 3600))
    return SOON if state.state.coming or _hope(state) else LATER
