"""A model's plan, and a life that is led by events at given times."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from vllm_circus.config.models import Ejection, Probe, Queue, RequestRules, Restart
from vllm_circus.lifecycle.events import Action, Event, Moment
from vllm_circus.lifecycle.life import Life
from vllm_circus.lifecycle.machine import advance
from vllm_circus.lifecycle.states import State
from vllm_circus.plan.types import Endpoint, ModelPlan


def model_plan(name: str = "a", **changes: Any) -> ModelPlan:
    plan = ModelPlan(
        name=name,
        watcher=f"model-{name}",
        model=f"/models/{name}",
        engine="vllm",
        argv=("vllm", "serve"),
        env=(),
        env_file=None,
        keyed=True,
        endpoint=Endpoint("127.0.0.1", 8001),
        names=(name,),
        aliases=(),
        adapters=(),
        check_names=True,
        gpus=(0,),
        profile=None,
        priority=0,
        enabled=True,
        start_timeout=None,
        drain_timeout=30.0,
        stop_timeout=15.0,
        restart=Restart(),
        probe=Probe(),
        digest="d",
        group=name,
        fallback=None,
        max_in_flight=None,
        queue=Queue(),
        affinity=None,
        ejection=Ejection(),
        request=RequestRules(),
    )
    return replace(plan, **changes)


@dataclass
class Story:
    """A life and its clock."""

    plan: ModelPlan = field(default_factory=model_plan)
    life: Life = field(default_factory=Life)
    now: float = 1000.0

    def after(self, seconds: float) -> Story:
        self.now += seconds
        return self

    def tell(self, *events: Event) -> tuple[Action, ...]:
        """Feed events; the actions of the last one."""
        actions: tuple[Action, ...] = ()
        for event in events:
            self.life, actions = advance(self.life, event, Moment(self.now, self.now + 1e9), self.plan)
        return actions

    def state(self) -> State:
        return self.life.state
