"""What the control pages know: the plan, the last messages of the plugins, and this worker. Pure.

Rules: everything is told from the last snapshots, so every worker says the same, a dead backend breaks no page, and
a dead plugin leaves what was known last. A model of which nothing was heard is `unknown`. Clients see models, in the
state of the replica that is nearest to serving; operators see every replica.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from vllm_circus.bus.messages import CountsMessage, ModelCounts, ModelsMessage, ModelState
from vllm_circus.lifecycle.states import State
from vllm_circus.plan.types import ModelPlan, Plan
from vllm_circus.proxy.routes import nearest

if TYPE_CHECKING:
    from vllm_circus.proxy.cors import Cors
    from vllm_circus.proxy.relay import Relay

UNKNOWN = "unknown"
OWNER = "vllm-circus"


class Outlook:
    """Read by the handlers; `counts` is replaced with each message of the stats plugin."""

    def __init__(self, plan: Plan, relay: Relay) -> None:
        self.plan = plan
        self.counts: CountsMessage | None = None
        self._relay = relay
        self._groups = plan.replicas()

    def take_plan(self, plan: Plan) -> None:
        """Tell of this plan from now on."""
        self.plan = plan
        self._groups = plan.replicas()

    @property
    def cors(self) -> Cors:
        """Which web pages may read what is told."""
        return self._relay.cors

    @property
    def models(self) -> ModelsMessage | None:
        """The last snapshot of the states."""
        return self._relay.models

    @property
    def keyed(self) -> bool:
        """Whether whoever comes here had to show a key."""
        return len(self._relay.keys) > 0

    def state_of(self, name: str) -> ModelState | None:
        """The last known state of a model."""
        message = self.models
        return next((state for state in message.models if state.name == name), None) if message else None

    def model_list(self) -> list[dict[str, Any]]:
        """Every name that a client may use, in OpenAI's form, with the state and, for adapters, the parent."""
        return [entry for replicas in self._groups.values() for entry in self._entries(replicas)]

    def health(self) -> dict[str, Any]:
        """Whether every enabled engine is ready; the states of the models, and of those that are replicas."""
        enabled = [self._state_name(model) for model in self.plan.models if model.enabled]
        fine = all(state in {State.READY, UNKNOWN} for state in enabled)
        best = {group: self._nearest(replicas) for group, replicas in self._groups.items()}
        return {
            "status": "ok" if fine else "degraded",
            "models": {group: state.state.value if state else UNKNOWN for group, state in best.items()},
            "replicas": {
                model.name: self._state_name(model) for model in self.plan.models if model.name != model.group
            },
        }

    def registry(self) -> dict[str, Any]:
        """What is configured, engine by engine."""
        return {"models": [self._registered(model) for model in self.plan.models]}

    def status(self) -> dict[str, Any]:
        """Everything: engines with their state and counts, workers, GPUs, how old the news is."""
        counts, models = self.counts, self.models
        return {
            "instance": self.plan.instance.name,
            "worker": {"pid": os.getpid(), "connections": len(self._relay.connections)},
            "draining": self._relay.draining,
            "heard_at": {"health": models.sent_at if models else None, "stats": counts.sent_at if counts else None},
            "now": time.time(),
            "models": [self._registered(model) | self._live(model) for model in self.plan.models],
            "unrouted": counts.unrouted if counts else {},
            "workers": [_plain(worker) for worker in counts.workers] if counts else [],
            "gpus": [_plain(gpu) for gpu in counts.gpus] if counts else [],
        }

    def _state_name(self, model: ModelPlan) -> str:
        state = self.state_of(model.name)
        return state.state.value if state else UNKNOWN

    def _nearest(self, replicas: Iterable[ModelPlan]) -> ModelState | None:
        """The state that stands for a model with these replicas; None where nothing was heard of any."""
        return nearest(state for model in replicas if (state := self.state_of(model.name)))

    def _entries(self, replicas: tuple[ModelPlan, ...]) -> list[dict[str, Any]]:
        model, state = replicas[0], self._nearest(replicas)
        shared = {
            "object": "model",
            "created": int(state.started_at or 0) if state else 0,
            "owned_by": OWNER,
            "state": state.state.value if state else UNKNOWN,
        }
        adapters = {adapter.name for adapter in model.adapters}
        return [
            {"id": name, "parent": model.group if name in adapters else None, "root": model.group} | shared
            for name in model.names
        ]

    def _registered(self, model: ModelPlan) -> dict[str, Any]:
        return {
            "name": model.name,
            "group": model.group,
            "fallback": model.fallback,
            "model": model.model,
            "aliases": list(model.aliases),
            "adapters": [adapter.name for adapter in model.adapters],
            "endpoint": str(model.endpoint),
            "port": model.endpoint.port,
            "gpus": list(model.gpus) if model.gpus is not None else None,
            "profile": model.profile,
            "engine": model.engine,
            "enabled": model.enabled,
            "priority": model.priority,
            "state": self._state_name(model),
        }

    def _live(self, model: ModelPlan) -> dict[str, Any]:
        state = self.state_of(model.name)
        counts = self.counts
        told = counts.models.get(model.name) if counts else None
        return {
            "reason": state.reason if state else "",
            "phase": state.phase if state else "",
            "since_at": (state.since_at or None) if state else None,
            "started_at": state.started_at if state else None,
            "pid": state.pid if state else None,
            "tries": state.tries if state else 0,
            "retry_after": state.retry_after if state else None,
            "counts": _counted(told or ModelCounts()),
            "request_rate": counts.request_rate.get(model.name, 0.0) if counts else 0.0,
            "token_rate": counts.token_rate.get(model.name, 0.0) if counts else 0.0,
        }


def _counted(counts: ModelCounts) -> dict[str, Any]:
    return {
        "requests": counts.requests,
        "errors": counts.errors,
        "statuses": counts.statuses,
        "in_flight": counts.in_flight,
        "waiting": counts.waiting,
        "streams": counts.streams,
        "chunks": counts.chunks,
        "cut": counts.cut,
        "prompt_tokens": counts.prompt_tokens,
        "completion_tokens": counts.completion_tokens,
        "request_bytes": counts.request_bytes,
        "response_bytes": counts.response_bytes,
    }


def _plain(item: Any) -> dict[str, Any]:
    """A frozen dataclass of plain values as a dictionary."""
    return dict(vars(item))
