from __future__ import annotations

from typing import Any

import pytest

from tests.plans import model_plan
from vllm_circus.bus.messages import CommandMessage, ReplyMessage, Verb
from vllm_circus.lifecycle import events as e
from vllm_circus.lifecycle.life import Diagnosis
from vllm_circus.lifecycle.memory import Memory, dump_memory, load_memory
from vllm_circus.lifecycle.states import State
from vllm_circus.paths import Instance
from vllm_circus.plan.types import ModelPlan, digest_of, dump_plan

from .conftest import Clock, make_plan
from .played import make_keeper, play, shown


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
    keeper.feed("a", e.StartRefused(Diagnosis("no")))
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
    keeper.feed("a", e.Exited(7, Diagnosis("exit code 1")))
    assert shown(keeper, "a").retry_after == 25  # it took 10 s this time
    keeper.feed("a", e.Cleaned(7))
    keeper.feed("a", e.Admitted())
    keeper.feed("a", e.StartRefused(Diagnosis("no")))
    state = shown(keeper, "a")
    assert (state.state, state.retry_after) == (State.BACKOFF, 35)
    assert state.reason == "no; next try in 10 s"


def test_nobody_can_say_how_long_the_first_load_takes(instance: Instance) -> None:
    keeper, _ = make_keeper(instance, Clock())
    keeper.begin()
    assert shown(keeper, "a").retry_after is None


def test_a_wait_that_is_known_is_told_before_the_first_load_too(instance: Instance) -> None:
    keeper, _ = make_keeper(instance, Clock())
    keeper.begin()
    keeper.feed("a", e.Admitted())
    for _ in range(2):
        keeper.feed("a", e.StartRefused(Diagnosis("no")))
        keeper.feed("a", e.Admitted())
    assert (shown(keeper, "a").state, shown(keeper, "a").retry_after) == (State.BACKOFF, 15)


def test_leftovers_are_told_as_the_reason_to_wait(instance: Instance) -> None:
    keeper, _ = make_keeper(instance, Clock())
    keeper.begin()
    keeper.feed("a", e.Spawned(7))
    keeper.feed("a", e.Exited(7, Diagnosis("exit code 1")))
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


def test_news_of_models_that_are_not_ours_are_nobodys(instance: Instance) -> None:
    keeper, done = make_keeper(instance, Clock())
    keeper.feed("zebra", e.Spawned(7))
    assert done == []


def sleepy(name: str = "a", **changes: Any) -> ModelPlan:
    return model_plan(name, sleeps=True, **changes)


def test_a_load_that_is_late_is_expected_to_take_the_longer_the_later_it_is(instance: Instance) -> None:
    clock = Clock()
    keeper, _ = make_keeper(instance, clock, model_plan("a"), memory=Memory(loads={"a": (4.0,)}))
    keeper.begin()
    keeper.feed("a", e.Spawned(7))
    told = []
    for seconds in (0, 3, 17, 100, 480):
        clock.steady += seconds
        told.append(shown(keeper, "a").retry_after)
    assert told == [4, 1, 5, 30, 150]
    assert shown(keeper, "a").expected == 4


def test_the_plan_that_is_worked_by_is_told(instance: Instance) -> None:
    keeper, _ = make_keeper(instance, Clock(), sleepy())
    assert keeper.message(1).plan == digest_of(dump_plan(make_plan(instance, sleepy())))


def test_what_is_on_demand_is_not_started_with_the_set_but_by_a_request(instance: Instance) -> None:
    played = play(instance, model_plan("a", on_demand=True), model_plan("off", enabled=False, on_demand=True))
    assert played.states() == "a:stopped off:stopped"
    state = shown(played.keeper, "a")
    assert (state.on_call, state.awaited, state.reason) == (True, False, "the first request starts it")
    assert not shown(played.keeper, "off").on_call
    assert played.say("want", "a", "off", "unheard-of").accepted == ("a",)
    state = shown(played.keeper, "a")
    assert (state.state, state.on_call, state.awaited) == (State.LOADING, False, True)
    assert played.say("want", "a").accepted == ()
    played.seconds(2)
    state = shown(played.keeper, "a")
    assert (state.state, state.awaited) == (State.READY, False)


def test_wants_of_workers_are_not_logged(instance: Instance, caplog: pytest.LogCaptureFixture) -> None:
    played = play(instance, model_plan("a", on_demand=True))
    with caplog.at_level("INFO"):
        played.say("want", "a")
        assert "operator" not in caplog.text
        played.say("stop", "a")
        assert "operator: stop a: 1 to change" in caplog.text


def test_a_stopped_model_is_not_wanted(instance: Instance) -> None:
    played = play(instance, model_plan("a", on_demand=True))
    assert played.say("stop", "a").accepted == ("a",)
    assert played.say("want", "a").accepted == ()
    assert not shown(played.keeper, "a").on_call


def test_an_operator_puts_to_sleep_and_wakes_up(instance: Instance) -> None:
    played = play(instance, sleepy())
    assert played.say("sleep", "a").accepted == ("a",)
    played.seconds(3)
    assert played.history == ["Sleep a"]
    state = shown(played.keeper, "a")
    assert (state.state, state.on_call, state.pid) == (State.SLEEPING, True, 1)
    assert played.say("wake", "a").accepted == ("a",)
    played.seconds(3)
    assert (played.states(), played.history) == ("a:ready", ["Sleep a", "Wake a"])
    played.say("sleep", "a")
    played.seconds(3)
    assert shown(played.keeper, "a").retry_after == shown(played.keeper, "a").expected == 1.0


@pytest.mark.parametrize(
    ("verb", "names", "error"),
    [
        ("sleep", ("b",), "b has no sleep mode: set `sleep: true` in the models file"),
        ("sleep", ("a", "b"), "b has no sleep mode: set `sleep: true` in the models file"),
        ("sleep", ("c",), "c is stopped: only a model that is ready goes to sleep"),
        ("wake", ("c",), "c is stopped, not asleep: start it"),
        ("wake", ("nope",), "no such model: nope"),
        ("reload", (), "only the set as a whole is reloaded"),
    ],
)
def test_a_wish_that_makes_no_sense_is_refused_with_the_reason(
    instance: Instance, verb: Verb, names: tuple[str, ...], error: str
) -> None:
    played = play(instance, sleepy(), model_plan("b", gpus=(1,)), sleepy("c", gpus=(2,), enabled=False))
    assert played.say(verb, *names) == ReplyMessage((), error)
    assert played.say("sleep").accepted == ("a",), "of all, those that can"


def test_a_wish_that_makes_sense_for_none_is_refused(instance: Instance) -> None:
    assert play(instance, model_plan("b")).say("sleep").error.startswith("b has no sleep mode")


def test_what_the_doctor_says_is_told_and_cleaned(instance: Instance) -> None:
    keeper, _ = make_keeper(instance, Clock())
    keeper.begin()
    keeper.feed("a", e.Spawned(7))
    keeper.feed("a", e.Exited(7, Diagnosis("no\x1b[31m memory", "ask\x1b[0m for less", "oom", 1, ("a\x1bline",))))
    keeper.feed("a", e.Cleaned(7))
    state = shown(keeper, "a")
    assert (state.reason, state.fix) == ("no memory", "ask for less")
    assert state.crash is not None
    assert state.crash.why == Diagnosis("no memory", "ask for less", "oom", 1, state.crash.why.evidence)
    assert "\x1b" not in str(state.crash)


def test_the_names_of_the_running_engine_are_told_where_they_are_not_the_plans(instance: Instance) -> None:
    played = play(instance, model_plan("a", aliases=("one",)))
    assert shown(played.keeper, "a").names == ()
    played.keeper.take_plan(make_plan(instance, model_plan("a", aliases=("two",))))
    assert shown(played.keeper, "a").names == ("a", "one")


def test_what_the_probes_say_is_told(instance: Instance) -> None:
    clock = Clock()
    keeper, _ = make_keeper(instance, clock, model_plan("a"))
    keeper.begin()
    keeper.feed("a", e.Spawned(7))
    clock.steady += 5
    assert shown(keeper, "a").probed_at is None
    keeper.feed("a", e.ProbeOk(clock.steady))
    clock.steady += 2
    keeper.feed("a", e.ProbeFailed(clock.steady, "no answer"))
    told = shown(keeper, "a")
    assert told.probed_at == keeper.message(1).sent_at - 2
    assert told.failures == 1
    keeper.feed("a", e.Exited(7, Diagnosis("died")))
    assert (shown(keeper, "a").probed_at, shown(keeper, "a").failures, shown(keeper, "a").restarts) == (None, 0, 1)


def test_idle_seconds_are_not_worth_a_write(instance: Instance) -> None:
    played = play(instance, model_plan("a"))
    changes = played.keeper.changes
    for event in (e.Quiet(), e.Asked(), e.Answering(), e.Counted(2000.0, 1, 5), e.ProbeOk(2000.0)):
        played.keeper.feed("a", event)
    assert played.keeper.changes == changes


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
def test_a_clock_that_is_set_makes_nothing_older_or_younger(instance: Instance, jump: float) -> None:
    """Neither what goes on, nor what a successor of before the jump is told."""
    clock = Clock()
    keeper, done = make_keeper(instance, clock, model_plan("a"))
    keeper.begin()
    keeper.feed("a", e.Spawned(7))
    keeper.feed("a", e.Exited(7, Diagnosis("no")))
    keeper.feed("a", e.Cleaned(7))
    keeper.tick()
    keeper.feed("a", e.Spawned(8))
    clock.steady += 1.0
    keeper.feed("a", e.ProbeOk(clock.steady))
    clock.steady += 10.0
    keeper.tick()
    before, age_of = shown(keeper, "a"), clock().wall
    memory = load_memory(dump_memory(keeper.memory("me")))
    done.clear()
    clock.ahead += jump
    successor, _ = make_keeper(instance, clock, model_plan("a"), memory=memory)
    successor.take_up("a", 8)
    for one in (keeper, successor):
        one.tick()
        now = shown(one, "a")
        assert before.crash is not None
        assert now.crash is not None
        assert before.started_at is not None
        assert now.started_at is not None
        assert now.state is State.READY
        assert clock().wall - now.since_at == pytest.approx(age_of - before.since_at)
        assert clock().wall - now.started_at == pytest.approx(age_of - before.started_at)
        assert clock().wall - now.crash.at == pytest.approx(age_of - before.crash.at)
        told = one.changes
        one.tick()
        assert one.changes == told
    assert done == []
