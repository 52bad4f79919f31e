"""A model's plan with a value for everything; tests change what they are about."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from vllm_circus.config.models import Ejection, Idle, Probe, Queue, RequestRules, Restart
from vllm_circus.plan.types import Endpoint, ModelPlan


def model_plan(name: str = "a", **changes: Any) -> ModelPlan:
    """`names` and `serves` follow from the name, the aliases and the adapters where they are not given."""
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
        serves=(name,),
        sleeps=False,
        idle=Idle(),
        on_demand=False,
        exclusive=None,
        turn=10.0,
        memory_share=None,
    )
    names = (name, *changes.get("aliases", ()), *(adapter.name for adapter in changes.get("adapters", ())))
    names = changes.get("names", names)
    return replace(plan, **{"names": names, "serves": names, **changes})
