"""Models that take turns on their GPUs, kept by a keeper on a clock that is set by hand."""

from __future__ import annotations

from typing import Any

import pytest

from tests.plans import model_plan
from vllm_circus.config.models import Idle
from vllm_circus.lifecycle.states import State
from vllm_circus.paths import Instance
from vllm_circus.plan.types import ModelPlan

from .played import Played, play, shown


def one(name: str, **changes: Any) -> ModelPlan:
    return model_plan(name, **{"sleeps": True, "exclusive": "x", **changes})


def under_load(played: Played, seconds: int, *wanted: str) -> dict[str, int]:
    """Clients of those models wait or are served all the time; the seconds for which each was ready."""
    served = dict.fromkeys(wanted, 0)
    for _ in range(seconds):
        for name in wanted:
            if played.life(name).state is State.READY:
                served[name] += 1
                played.busy.add(name)
            else:
                played.busy.discard(name)
                played.say("want", name)
        played.second()
        assert (
            sum(life.state in {State.READY, State.LOADING, State.WAKING} for life in played.keeper.lives.values()) < 2
        )
    return served


def test_of_a_new_set_one_starts_and_the_others_rest_on_call(instance: Instance) -> None:
    played = play(instance, one("a"), one("b", priority=5), one("c", sleeps=False))
    assert played.states() == "a:stopped b:ready c:stopped"
    assert shown(played.keeper, "a").on_call
    assert shown(played.keeper, "a").reason == "another model of `x` has the turn; a request brings it back"
    played.seconds(1000)
    assert played.history == [], "nobody changes places with nobody waiting"


def test_a_request_brings_the_turn_when_the_other_one_is_quiet(instance: Instance) -> None:
    played = play(instance, one("a"), one("b", sleeps=False))
    played.say("want", "b")
    played.seconds(6)
    assert (played.states(), played.history) == ("a:sleeping b:ready", ["Sleep a", "Start b"])
    assert shown(played.keeper, "a").on_call
    played.say("want", "a")
    played.seconds(8)
    assert (played.states(), played.history[2:]) == (
        "a:ready b:stopped",
        ["Terminate b", "CleanUp b", "Wake a"],
    )


def test_under_load_each_has_its_turn_and_nobody_starves(instance: Instance) -> None:
    played = play(instance, one("a", turn=20.0), one("b", turn=20.0), one("c", turn=20.0, sleeps=False))
    served = under_load(played, 900, "a", "b", "c")
    assert min(served.values()) > 200, f"turns of 20 s, each as often: {served}"
    switches = sum(line.split()[0] in {"Wake", "Start"} for line in played.history)
    assert switches <= 900 / 20, "no turn is shorter than it is to be"
    order = [line.split()[1] for line in played.history if line.split()[0] in {"Wake", "Start"}]
    assert all(name not in order[at : at + 2] for at, name in enumerate(order[2:])), "in turn"


def test_two_of_which_one_has_a_long_request_wait_for_it(instance: Instance) -> None:
    played = play(instance, one("a"), one("b"))
    played.busy.add("a")
    for _ in range(600):
        played.say("want", "b")
        played.second()
    assert (played.states(), played.history) == ("a:draining b:queued", [])
    played.busy.clear()
    played.seconds(5)
    assert played.states() == "a:sleeping b:ready"


def test_a_crash_of_the_one_costs_the_other_no_turn(instance: Instance) -> None:
    played = play(instance, one("a"), one("b"))
    played.broken.add("b")
    played.say("want", "b")
    played.seconds(8)
    assert played.states() == "a:sleeping b:backoff"
    played.say("want", "a")
    played.seconds(3)
    played.busy.add("a")
    played.history.clear()
    played.seconds(100)
    assert (played.states(), played.history) == ("a:ready b:stopped", [])
    assert (shown(played.keeper, "b").on_call, shown(played.keeper, "b").reason) == (True, "no such program")


def test_an_operators_start_has_its_turn(instance: Instance) -> None:
    played = play(instance, one("a"), one("b"))
    played.busy.add("a")
    assert played.say("start", "b").accepted == ("b",)
    assert shown(played.keeper, "b").awaited is True
    assert shown(played.keeper, "b").reason == "waits for its turn among the models of `x`"
    played.busy.clear()
    played.seconds(20)
    assert played.states() == "a:sleeping b:ready"


def test_it_goes_on_where_the_keeper_was_killed(instance: Instance) -> None:
    played = play(instance, one("a", turn=5.0), one("b", turn=5.0))
    for second in range(120):
        under_load(played, 1, "a", "b")
        if second % 7 == 3:
            played.replace_keeper()
    assert min(under_load(played, 100, "a", "b").values()) > 20


def test_an_idle_model_sleeps_and_a_request_wakes_it_up(instance: Instance) -> None:
    played = play(instance, model_plan("a", sleeps=True, idle=Idle(after=30.0)))
    played.busy.add("a")
    played.seconds(60)
    assert played.states() == "a:ready"
    played.busy.clear()
    played.seconds(35)
    assert (played.states(), played.history) == ("a:sleeping", ["Sleep a"])
    played.say("want", "a")
    played.seconds(3)
    assert (played.states(), played.history) == ("a:ready", ["Sleep a", "Wake a"])


@pytest.mark.parametrize("gpu", [0, 1])
def test_an_idle_model_does_not_give_memory_back_while_another_loads_on_its_gpu(instance: Instance, gpu: int) -> None:
    played = play(
        instance,
        model_plan("a", sleeps=True, idle=Idle(after=30.0)),
        model_plan("b", gpus=(gpu,), enabled=False),
    )
    played.seconds(20)
    played.say("start", "b")
    played.todo.clear()  # circus takes its time
    played.seconds(30)
    assert played.states() == f"a:{'ready' if gpu == 0 else 'sleeping'} b:loading"
