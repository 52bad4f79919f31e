"""Replicas that restart one at a time."""

from __future__ import annotations

from typing import Any

import pytest

from tests.plans import model_plan
from vllm_circus.lifecycle.states import State
from vllm_circus.paths import Instance
from vllm_circus.plan.types import ModelPlan

from .played import Played, play, shown


def replicas(number: int, **changes: Any) -> list[ModelPlan]:
    return [model_plan(f"a-{at}", group="a", gpus=(at,), **changes) for at in range(1, number + 1)]


def watch(played: Played, seconds: int = 40) -> int:
    """The fewest that served at any time."""
    least = len(played.keeper.lives)
    for _ in range(seconds):
        played.second()
        least = min(least, sum(life.state is State.READY for life in played.keeper.lives.values()))
    return least


def test_replicas_restart_one_at_a_time_and_all_of_them(instance: Instance) -> None:
    played = play(instance, *replicas(3), model_plan("b", gpus=(0,)))
    assert played.say("restart").accepted == ("a-1", "a-2", "a-3", "b")
    assert shown(played.keeper, "a-2").reason == "to be restarted after a-1"
    assert shown(played.keeper, "a-1").awaited is True
    played.seconds(8)
    assert watch(played) >= 3
    assert played.living == {"a-1": 5, "b": 6, "a-2": 7, "a-3": 8}
    assert shown(played.keeper, "a-2").reason == ""


def test_one_that_serves_nobody_comes_first(instance: Instance) -> None:
    played = play(instance, *replicas(2))
    played.say("stop", "a-2")
    played.seconds(5)
    played.history.clear()
    played.say("restart", "a-1", "a-2")
    watch(played)
    assert [line for line in played.history if line.startswith("Start")] == ["Start a-2", "Start a-1"]


def test_where_one_does_not_come_back_the_rest_are_left_alone(
    instance: Instance, caplog: pytest.LogCaptureFixture
) -> None:
    played = play(instance, *replicas(3))
    played.broken.add("a-2")
    played.say("restart", "a-3", "a-2", "a-1")
    watch(played)
    assert played.living == {"a-1": 1, "a-3": 4}
    assert "a-2 did not come back: not restarted are a-1" in caplog.text
    state = shown(played.keeper, "a-1")
    assert (state.state, state.reason) == (State.READY, "not restarted: a-2 did not come back")
    played.broken.clear()
    played.say("restart", "a-2", "a-1")
    watch(played)
    assert sorted(played.living.values()) == [4, 5, 6]


def test_a_second_wish_waits_for_the_first(instance: Instance) -> None:
    played = play(instance, *replicas(2))
    played.say("restart", "a-1")
    played.seconds(1)
    assert played.say("restart", "a-2").accepted == ("a-2",)
    assert played.say("restart", "a-2").accepted == ("a-2",)
    assert watch(played) >= 1
    assert played.living == {"a-1": 3, "a-2": 4}


def test_whoever_is_stopped_meanwhile_is_not_restarted(instance: Instance) -> None:
    played = play(instance, *replicas(2))
    played.say("restart", "a-1", "a-2")
    played.say("stop", "a-2")
    watch(played)
    assert played.states() == "a-1:ready a-2:stopped"


def test_a_successor_goes_on_with_the_round(instance: Instance) -> None:
    played = play(instance, *replicas(3))
    played.say("restart")
    for _ in range(20):
        played.second()
        played.replace_keeper()
        assert sum(life.state is State.READY for life in played.keeper.lives.values()) >= 2
    assert min(played.living.values()) > 3, "every one has a new process"
