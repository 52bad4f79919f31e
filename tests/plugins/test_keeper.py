from __future__ import annotations

import pytest

from plugins.keeper import Keeper, Room
from tests.lifecycle.conftest import model_plan
from vllm_circus.bus.messages import CommandMessage, ModelState, ReplyMessage
from vllm_circus.lifecycle import events as e
from vllm_circus.lifecycle.memory import Memory, dump_memory, load_memory
from vllm_circus.lifecycle.states import State
from vllm_circus.paths import Instance
from vllm_circus.plan.types import ModelPlan

from .conftest import Clock, make_plan

Done = list[tuple[str, e.Action]]


def make_keeper(
    instance: Instance, clock: Clock, *models: ModelPlan, memory: Memory | None = None, starts: int = 4
) -> tuple[Keeper, Done]:
    done: Done = []
    plan = make_plan(instance, *models)
    keeper = Keeper(
        plan,
        memory or Memory(),
        Room(starts, gpus=True),
        lambda model, action: done.append((model.name, action)),
        clock,
    )
    return keeper, done


def shown(keeper: Keeper, name: str) -> ModelState:
    return next(state for state in keeper.message(1).models if state.name == name)


def test_a_new_set_starts_what_is_enabled_by_priority_and_one_a_gpu(instance: Instance) -> None:
    models = [
        model_plan("low"),
        model_plan("high", priority=5),
        model_plan("other", gpus=(1,)),
        model_plan("off", gpus=(2,), enabled=False),
    ]
    keeper, done = make_keeper(instance, Clock(), *models)
    keeper.begin()
    assert done == [("high", e.Start()), ("other", e.Start())]
    assert [state.state for state in keeper.message(1).models] == ["queued", "loading", "loading", "stopped"]
    assert shown(keeper, "off").reason == "not enabled in the models file"
    keeper.feed("high", e.Spawned(7))
    keeper.tick()
    assert len(done) == 2
    keeper.feed("high", e.ProbeOk(1000.0))
    keeper.tick()
    assert done[2:] == [("low", e.Start())]


def test_the_next_one_starts_when_the_former_has_died(instance: Instance) -> None:
    keeper, done = make_keeper(instance, Clock(), model_plan("a", priority=1), model_plan("b"))
    keeper.begin()
    keeper.feed("a", e.StartRefused("no"))
    keeper.feed("a", e.StopWished())
    keeper.tick()
    assert [name for name, action in done] == ["a", "b"]


def test_the_sequence_grows_with_every_change_of_state_and_never_falls_behind_a_predecessors(
    instance: Instance,
) -> None:
    clock = Clock()
    keeper, _ = make_keeper(instance, clock, memory=Memory(sequence=10**10))
    first = keeper.message(1).sequence
    assert first > 10**10
    keeper.begin()
    second = keeper.message(1).sequence
    assert second > first
    keeper.tick()
    assert keeper.message(1).sequence == second
    lost, _ = make_keeper(instance, clock)
    assert lost.sequence == clock().wall


def test_what_a_successor_is_told_is_what_was_written_down(instance: Instance) -> None:
    clock = Clock()
    keeper, _ = make_keeper(instance, clock)
    keeper.begin()
    keeper.feed("a", e.Spawned(7))
    clock.steady += 30
    keeper.feed("a", e.ProbeOk(clock.steady))
    memory = load_memory(dump_memory(keeper.memory("me")))
    assert memory == keeper.memory("me")
    assert memory.loads["a"] == (30.0,)
    successor, done = make_keeper(instance, clock, memory=memory)
    successor.take_up("a", 7)
    successor.take_up("b", 8)
    assert shown(successor, "a") == shown(keeper, "a")
    assert shown(successor, "b").state is State.LOADING
    assert done == []


def test_a_memory_of_another_form_is_refused() -> None:
    for data in (b"", b"{", b"[]", b'{"version": 99}', b'{"lives": {"a": {"state": "dancing"}}}'):
        with pytest.raises(ValueError, match=r"error|version"):
            load_memory(data)


def test_how_long_it_will_take_is_learned_from_former_loads(instance: Instance) -> None:
    clock = Clock()
    keeper, _ = make_keeper(instance, clock, model_plan("a"), memory=Memory(loads={"a": (40.0,)}))
    keeper.begin()
    keeper.feed("a", e.Spawned(7))
    clock.steady += 10
    assert shown(keeper, "a").retry_after == 30
    keeper.feed("a", e.ProbeOk(clock.steady))
    assert shown(keeper, "a").retry_after is None
    keeper.feed("a", e.Exited(7, "exit code 1"))
    assert shown(keeper, "a").retry_after == 25  # it took 10 s this time
    keeper.feed("a", e.Cleaned(7))
    keeper.feed("a", e.Admitted())
    keeper.feed("a", e.StartRefused("no"))
    state = shown(keeper, "a")
    assert (state.state, state.retry_after) == (State.BACKOFF, 35)
    assert state.reason == "no; next try in 10 s"


def test_nobody_can_say_how_long_the_first_load_takes(instance: Instance) -> None:
    keeper, _ = make_keeper(instance, Clock())
    keeper.begin()
    assert shown(keeper, "a").retry_after is None


def test_leftovers_are_told_as_the_reason_to_wait(instance: Instance) -> None:
    keeper, _ = make_keeper(instance, Clock())
    keeper.begin()
    keeper.feed("a", e.Spawned(7))
    keeper.feed("a", e.Exited(7, "exit code 1"))
    assert shown(keeper, "a").reason == "what process 7 started is still ending"


def test_what_an_operator_wishes_is_accepted_where_it_changes_something(instance: Instance) -> None:
    keeper, done = make_keeper(instance, Clock())
    assert keeper.command(CommandMessage("start", ("a",))).accepted == ("a",)
    assert done == [("a", e.Start())]
    assert keeper.command(CommandMessage("start", ())).accepted == ("b",)
    assert keeper.command(CommandMessage("start", ())).accepted == ()
    assert keeper.command(CommandMessage("stop", ())).accepted == ("a", "b")
    reply = keeper.command(CommandMessage("stop", ("b", "nope\x1b[31m")))
    assert reply.accepted == ()
    assert reply.error == "no such model: nope"


def test_of_a_models_replicas_one_at_a_time_is_restarted(instance: Instance) -> None:
    replicas = [model_plan(f"a-{number}", group="a", gpus=(number,)) for number in (1, 2)]
    keeper, _ = make_keeper(instance, Clock(), *replicas, model_plan("b", gpus=(3,)))
    for names in (("a-1", "a-2"), ("b", "a-2", "a-1"), ()):
        reply = keeper.command(CommandMessage("restart", names))
        assert reply == ReplyMessage((), "replicas of a are restarted one at a time: wait for each to be ready")
    assert keeper.command(CommandMessage("restart", ("a-2", "b", "a-2"))).accepted == ("a-2", "b", "a-2")
    assert keeper.command(CommandMessage("start", ("a-1", "a-2"))).accepted == ("a-1",)


def test_news_of_models_that_are_not_ours_are_nobodys(instance: Instance) -> None:
    keeper, done = make_keeper(instance, Clock())
    keeper.feed("zebra", e.Spawned(7))
    assert done == []
