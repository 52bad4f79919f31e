"""A plan that gives models other GPUs or addresses: their processes stay where they are until they are gone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.plans import model_plan
from vllm_circus.lifecycle.states import State
from vllm_circus.paths import Instance
from vllm_circus.plan.types import Endpoint, ModelPlan

from .conftest import make_plan
from .played import play, shown


def at(port: int) -> Endpoint:
    return Endpoint("127.0.0.1", port)


def replica(number: int, *gpus: int, **changes: Any) -> ModelPlan:
    return model_plan(f"chat-{number}", group="chat", gpus=gpus, endpoint=at(8000 + number), **changes)


def test_two_models_that_swap_their_gpus_never_meet_on_one(instance: Instance) -> None:
    played = play(instance, model_plan("a", endpoint=at(1)), model_plan("b", gpus=(1,), endpoint=at(2)))
    played.busy.add("b")
    moved = {"digest": "moved"}
    played.keeper.take_plan(
        make_plan(
            instance,
            model_plan("a", gpus=(1,), endpoint=at(1), **moved),
            model_plan("b", gpus=(0,), endpoint=at(2), **moved),
        )
    )
    played.seconds(6)
    assert played.states() == "a:queued b:draining"
    assert shown(played.keeper, "a").reason == "waits until b has moved"
    played.busy.clear()
    played.seconds(8)
    assert played.states() == "a:ready b:ready"
    assert [word for word in played.history if word.startswith("Start")] == ["Start a", "Start b"]
    assert played.history.index("Start a") > played.history.index("CleanUp b")
    assert played.keeper.memory("me").started == {}


def test_a_model_that_is_renamed_waits_for_its_own_port(instance: Instance) -> None:
    played = play(instance, model_plan("old", gpus=(), endpoint=at(1)))
    played.busy.add("old")
    renamed = make_plan(instance, model_plan("new", gpus=(), endpoint=at(1)))
    played.keeper.take_plan(renamed)
    played.seconds(5)
    assert played.states() == "new:queued old:draining"
    played.replace_keeper(renamed)
    played.seconds(2)
    assert played.states() == "new:queued old:draining"
    played.busy.clear()
    played.seconds(6)
    assert played.states() == "new:ready"


def test_what_runs_by_an_earlier_plan_is_looked_after_where_it_was_started(instance: Instance) -> None:
    played = play(instance, replica(1, 0), replica(2, 1))
    changes: dict[str, Any] = {"digest": "sleepy", "sleeps": True, "drain_timeout": 7.0}
    sockets = [Endpoint("127.0.0.1", number, f"/run/{number}") for number in (1, 2)]
    after = [replace(replica(number, number - 1, **changes), endpoint=sockets[number - 1]) for number in (1, 2)]
    plan = make_plan(instance, *after)
    played.keeper.take_plan(plan)
    played.second()
    runs = played.keeper.running("chat-2")
    assert (runs.endpoint, runs.sleeps, runs.drain_timeout) == (at(8002), False, 7.0)
    played.replace_keeper(plan)
    assert played.keeper.running("chat-2") == runs
    played.seconds(15)
    assert played.states() == "chat-1:ready chat-2:ready"
    assert [played.keeper.running(model.name) for model in after] == after


def test_replicas_that_swap_their_gpus_do_not_wait_for_each_other(instance: Instance) -> None:
    played = play(instance, replica(1, 0), replica(2, 1))
    played.keeper.take_plan(make_plan(instance, replica(1, 1, digest="x"), replica(2, 0, digest="x")))
    played.seconds(15)
    assert played.states() == "chat-1:ready chat-2:ready"
    starts = [played.history.index(f"Start chat-{number}") for number in (1, 2)]
    assert min(starts) > played.history.index("Terminate chat-2")


def test_a_new_replica_waits_until_the_one_whose_gpu_it_gets_has_moved(instance: Instance) -> None:
    played = play(instance, replica(1, 0, 1), replica(2, 2, 3))
    more = [replica(number, number - 1, digest="more") for number in (1, 2, 3, 4)]
    played.keeper.take_plan(make_plan(instance, *more))
    played.seconds(20)
    assert played.states() == " ".join(f"chat-{number}:ready" for number in (1, 2, 3, 4))
    order = played.history
    assert order.index("Start chat-3") > order.index("CleanUp chat-2")
    assert order.index("Start chat-4") > order.index("CleanUp chat-2")
    assert order.index("Terminate chat-2") > order.index("Start chat-1"), "one serves all the time"


def test_nobody_waits_for_what_stays_as_it_is_since_the_round_was_given_up(instance: Instance) -> None:
    played = play(instance, replica(1, 0), replica(2, 1))
    played.broken.add("chat-1")
    other = model_plan("other", gpus=(1,), endpoint=at(9))
    played.keeper.take_plan(make_plan(instance, replica(1, 0, digest="x"), replica(2, 2, digest="x"), other))
    played.seconds(8)
    assert shown(played.keeper, "chat-2").reason == "not restarted: chat-1 did not come back"
    assert shown(played.keeper, "other").state is State.READY
