"""What a process was started with, where the plan of its model has changed since. Pure.

Rule: a process does not move. Until it and all that it left are gone it is asked, put to sleep and ended where it was
started, and it has the GPUs that it was started on; everything else about its model is as the plan of now says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from vllm_circus.lifecycle.life import Life
from vllm_circus.lifecycle.scheduler import Candidate, Holding, claimed_gpus
from vllm_circus.lifecycle.states import State
from vllm_circus.plan.types import ModelPlan

_OF_PROCESS = ("model", "engine", "argv", "env", "env_file", "keyed", "check_names", "endpoint", "gpus", "sleeps")
_ASKED_FOR = frozenset({State.LOADING, State.STOPPING})
_LEAVING = frozenset({State.DRAINING, State.STOPPING})


def as_started(model: ModelPlan, was: ModelPlan | None) -> ModelPlan:
    """The plan for a process that was started by the plan `was`; None is the plan of now."""
    return model if was is None else replace(model, **{name: getattr(was, name) for name in _OF_PROCESS})


def has_process(life: Life) -> bool:
    """Whether there is a process, or perhaps something that one left, or circus was asked for one."""
    return life.pid is not None or bool(life.remains) or life.state in _ASKED_FOR


def started_before(
    lives: Mapping[str, Life], before: Mapping[str, ModelPlan], planned: Mapping[str, ModelPlan]
) -> dict[str, ModelPlan]:
    """The plans that processes were started with, of those models whose process the plan of now would make another."""
    return {
        name: before[name]
        for name, life in lives.items()
        if has_process(life) and (name not in planned or as_started(planned[name], before[name]) != planned[name])
    }


def candidate(
    model: ModelPlan, life: Life, was: ModelPlan | None, *, machine_has_gpus: bool, behind: Iterable[str]
) -> Candidate:
    """The model as the scheduler sees it; those `behind` are to be restarted when others are ready."""
    holding = None
    if was is not None:
        leaves = life.state in _LEAVING or bool(life.remains) or model.name in behind
        holding = Holding(claimed_gpus(was.gpus, machine_has_gpus=machine_has_gpus), str(was.endpoint), leaves)
    return Candidate(
        model.name,
        model.priority,
        claimed_gpus(model.gpus, machine_has_gpus=machine_has_gpus),
        life,
        model.exclusive,
        model.turn,
        str(model.endpoint),
        holding,
    )
