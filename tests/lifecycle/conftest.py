"""A life that is led by events at given times."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from tests.plans import model_plan
from vllm_circus.lifecycle.events import (
    Action,
    Admitted,
    Drained,
    Event,
    Moment,
    ProbeOk,
    SleepWished,
    Slept,
    Spawned,
    StartWished,
)
from vllm_circus.lifecycle.life import Life
from vllm_circus.lifecycle.machine import advance
from vllm_circus.lifecycle.states import State
from vllm_circus.plan.types import ModelPlan


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


def loading(story: Story, pid: int = 7) -> Story:
    """Its process is there."""
    story.tell(StartWished(), Admitted(), Spawned(pid))
    return story


def ready(story: Story, pid: int = 7) -> Story:
    """It answers."""
    loading(story, pid).tell(ProbeOk(story.now))
    return story


def asleep(story: Story, level: Literal[1, 2] = 1) -> Story:
    """An operator put it to sleep."""
    ready(story).tell(SleepWished(level), Drained(), Slept(7))
    return story
