"""Another plan for the same set."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.plans import model_plan
from vllm_circus.config.models import Idle, Restart
from vllm_circus.lifecycle import events as e
from vllm_circus.lifecycle.life import Diagnosis
from vllm_circus.lifecycle.states import State
from vllm_circus.paths import Instance
from vllm_circus.plan.types import Plan

from .conftest import make_plan
from .played import Played, play, shown


def taken(played: Played, plan: Plan) -> None:
    played.plan = plan
    played.keeper.take_plan(plan)


def found(played: Played, plan: Plan) -> None:
    """The keeper was killed before it could take the plan."""
    played.replace_keeper(plan)


BOTH = pytest.mark.parametrize("change", [taken, found])
Change = Callable[[Played, Plan], None]


@BOTH
def test_only_what_changed_is_touched(instance: Instance, change: Change) -> None:
    models = [model_plan(name, gpus=(at,)) for at, name in enumerate("abcdef")]
    played = play(instance, *models)
    a, _, c, d, e_, f = models
    changed = model_plan("c", gpus=c.gpus, digest="another")
    aliased = model_plan("d", gpus=d.gpus, aliases=("alias",), drain_timeout=1.0)
    change(played, make_plan(instance, model_plan("new", gpus=(1,)), a, changed, aliased, e_, f))
    played.seconds(10)
    assert played.states() == "new:ready a:ready c:ready d:ready e:ready f:ready"
    assert sorted(played.history) == ["CleanUp b", "CleanUp c", "Start c", "Start new", "Terminate b", "Terminate c"]
    assert {name: played.living[name] for name in "adef"} == {"a": 1, "d": 4, "e": 5, "f": 6}


@BOTH
def test_what_is_gone_from_the_plan_is_kept_until_nothing_of_it_is_left(instance: Instance, change: Change) -> None:
    played = play(instance, model_plan("a"), model_plan("b", gpus=(1,)))
    played.busy.add("b")
    change(played, make_plan(instance, model_plan("a")))
    assert [state.name for state in played.keeper.message(1).models] == ["a", "b"]
    assert played.keeper.model("b").watcher == "model-b"
    assert played.say("start", "b").error == "no such model: b"
    assert played.say("want", "b").accepted == ()
    played.second()
    assert shown(played.keeper, "b").state is State.DRAINING
    played.busy.clear()
    played.replace_keeper()
    played.seconds(5)
    assert played.states() == "a:ready"
    assert "b" not in played.living
    assert played.keeper.memory("me").leaving == {}
    played.keeper.feed("b", e.Cleaned(2))
    assert played.states() == "a:ready"


def test_what_comes_back_into_the_plan_while_it_leaves_starts_again(instance: Instance) -> None:
    both = make_plan(instance, model_plan("a"), model_plan("b", gpus=(1,)))
    played = play(instance, *both.models)
    played.busy.add("b")
    played.keeper.take_plan(make_plan(instance, model_plan("a")))
    played.keeper.take_plan(both)
    played.busy.clear()
    played.seconds(8)
    assert (played.states(), played.living) == ("a:ready b:ready", {"a": 1, "b": 3})


@BOTH
def test_replicas_that_changed_take_turns(instance: Instance, change: Change) -> None:
    before = [model_plan(f"a-{at}", group="a", gpus=(at,)) for at in (1, 2, 3)]
    played = play(instance, *before)
    changed = [model_plan(f"a-{at}", group="a", gpus=(at,), digest="another") for at in (1, 2, 3)]
    change(played, make_plan(instance, *changed))
    for _ in range(30):
        played.second()
        assert sum(life.state is State.READY for life in played.keeper.lives.values()) >= 2
    assert min(played.living.values()) > 3


@BOTH
def test_what_sleeps_and_changed_is_ended_and_comes_anew_when_it_is_asked_for(
    instance: Instance, change: Change
) -> None:
    played = play(instance, model_plan("a", sleeps=True))
    played.say("sleep", "a")
    played.seconds(3)
    played.history.clear()
    change(played, make_plan(instance, model_plan("a", sleeps=True, digest="another")))
    played.seconds(3)
    assert (played.states(), played.history) == ("a:stopped", ["Terminate a", "CleanUp a"])
    assert shown(played.keeper, "a").on_call
    played.say("want", "a")
    played.seconds(3)
    assert (played.states(), played.life("a").digest) == ("a:ready", "another")


def test_what_sleeps_and_changed_while_somebody_waits_for_it_starts_anew(instance: Instance) -> None:
    played = play(instance, model_plan("a", sleeps=True), model_plan("b", gpus=(0,), enabled=False))
    played.say("sleep", "a")
    played.seconds(3)
    played.say("start", "b")
    played.say("want", "a")
    played.keeper.take_plan(make_plan(instance, model_plan("a", sleeps=True, digest="another")))
    played.seconds(8)
    assert (played.states(), played.life("a").digest) == ("a:ready", "another")


def test_a_start_that_was_asked_for_with_the_old_plan_is_made_anew(instance: Instance) -> None:
    played = play(instance, model_plan("a", enabled=False))
    played.say("start", "a")
    played.keeper.take_plan(make_plan(instance, model_plan("a", enabled=False, digest="another")))
    played.seconds(8)
    assert (played.states(), played.history) == ("a:ready", ["Start a", "Terminate a", "CleanUp a", "Start a"])
    assert played.life("a").digest == "another"


def test_what_is_turned_on_starts_and_what_is_turned_off_ends(instance: Instance) -> None:
    off, demand = model_plan("a", enabled=False), model_plan("b", gpus=(1,), on_demand=True)
    played = play(instance, off, demand, model_plan("c", gpus=(2,)))
    on = make_plan(instance, model_plan("a"), model_plan("b", gpus=(1,)), model_plan("c", gpus=(2,), enabled=False))
    played.keeper.take_plan(on)
    played.seconds(5)
    assert played.states() == "a:ready b:ready c:stopped"
    assert not shown(played.keeper, "b").awaited


def test_what_was_stopped_stays_so(instance: Instance) -> None:
    played = play(instance, model_plan("a"), model_plan("b", gpus=(1,)))
    played.say("stop", "a")
    played.seconds(3)
    played.keeper.take_plan(make_plan(instance, model_plan("a", digest="x"), model_plan("b", gpus=(1,))))
    played.seconds(3)
    assert played.states() == "a:stopped b:ready"


@pytest.mark.parametrize(("most", "state"), [(1, State.FAILED), (9, State.BACKOFF)])
def test_what_failed_is_tried_anew_by_a_plan_that_changes_its_engine(
    instance: Instance, most: int, state: State
) -> None:
    restart = Restart(max_tries=most, first_delay=500)
    played = play(instance, model_plan("a", restart=restart), model_plan("b", gpus=(1,)))
    played.broken.add("a")
    played.say("restart", "a")
    played.seconds(9)
    assert played.life("a").state is state
    renamed = model_plan("a", restart=restart, drain_timeout=1.0)
    played.keeper.take_plan(make_plan(instance, renamed, model_plan("b", gpus=(1,))))
    played.seconds(3)
    assert played.life("a").state is state, "it would fail again"
    played.broken.clear()
    mended = model_plan("a", restart=restart, digest="mended")
    played.keeper.take_plan(make_plan(instance, mended, model_plan("b", gpus=(1,))))
    assert shown(played.keeper, "a").tries == 0
    played.seconds(3)
    assert played.states() == "a:ready b:ready"


def test_a_model_that_leaves_and_dies_is_forgotten_too(instance: Instance) -> None:
    played = play(instance, model_plan("a"), model_plan("b", gpus=(1,)))
    played.busy.add("b")
    played.keeper.take_plan(make_plan(instance, model_plan("a")))
    played.keeper.feed("b", e.Exited(2, Diagnosis("exit code 1")))
    played.seconds(2)
    assert played.states() == "a:ready"


def test_what_drains_for_idleness_and_changed_ends_whoever_asks_for_it_then(instance: Instance) -> None:
    idle = Idle(after=10.0, then="stop")
    played = play(instance, model_plan("a", idle=idle))
    while played.life("a").state is State.READY:
        played.clock.steady += 1
        played.keeper.tick()
    assert played.states() == "a:draining"
    played.keeper.take_plan(make_plan(instance, model_plan("a", idle=idle, digest="another")))
    played.say("want", "a")
    played.seconds(5)
    assert (played.states(), played.life("a").digest) == ("a:ready", "another")


def test_what_nobody_needs_does_not_come_back_into_a_plan_that_it_left(instance: Instance) -> None:
    played = play(instance, model_plan("a", sleeps=True, exclusive="x"), model_plan("b", sleeps=True, exclusive="x"))
    played.say("want", "b")
    played.busy.add("a")
    played.seconds(12)
    assert played.states() == "a:draining b:queued"
    played.say("want", "a")
    played.keeper.take_plan(make_plan(instance, model_plan("b", sleeps=True, exclusive="x")))
    played.busy.clear()
    played.seconds(8)
    assert (played.states(), list(played.living)) == ("b:ready", ["b"])
