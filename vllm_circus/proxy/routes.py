"""Which model answers to which name, and whether it can now. Pure.

Rules: a table is made whole from the plan and the latest states, and never changed; the next snapshot makes another
one. A model whose state nobody tells is routable, so the proxy serves while every plugin is dead; what it then finds
at the endpoint decides.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
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
}
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
class Table:
    """Every name that a client may use, and what each model can do now.

    Attributes:
        default: what a request means that names no model.
        ready: the replicas that take requests.
        refusals: by model, why none of its replicas does.
        sequence: that of the snapshot it was made from, 0 for none.
    """

    names: Mapping[str, Route]
    default: Route | None
    ready: frozenset[str]
    refusals: Mapping[str, Refused]
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
    refusals: dict[str, Refused] = {}
    ready: set[str] = set()
    for group, models in members.items():
        told = {model.name: _refusal(group, states.get(model.name)) for model in models}
        ready.update(name for name, refusal in told.items() if refusal is None)
        least = _least([refusal for refusal in told.values() if refusal is not None], len(models))
        if least is not None:
            refusals[group] = least
    names = {name: Route(model.group, refusals.get(model.group)) for model in plan.models for name in model.names}
    default = plan.proxy.default_model
    if default is None and len(members) == 1:
        default = next(iter(members))
    found = names.get(default) if default else None
    return Table(names, found, frozenset(ready), refusals, message.sequence if message else 0)


def _least(refusals: list[Refused], replicas: int) -> Refused | None:
    """What is said of a model none of whose replicas takes requests: what ends first; None where one does."""
    if len(refusals) < replicas:
        return None
    return min(refusals, key=lambda refusal: refusal.retry_after or 0)


def _refusal(group: str, state: ModelState | None) -> Refused | None:
    if state is None or state.state.routable:
        return None
    said = state.reason or (state.phase if state.state is State.LOADING else "")
    return not_ready(group, WORDS[state.state], said, _retry_after(state))


def _retry_after(state: ModelState) -> int:
    """Whole seconds, at least one: RFC 9110, section 10.2.3."""
    if state.retry_after is not None:
        return max(1, min(math.ceil(state.retry_after), 3600))
    return SOON if state.state.coming else LATER
