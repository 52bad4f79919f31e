"""Idleness, requests that wait, turns."""

from __future__ import annotations

from typing import Any

import pytest

from tests.plans import model_plan
from vllm_circus.config.models import Idle
from vllm_circus.lifecycle import events as e
from vllm_circus.lifecycle.life import Diagnosis, Ending, Life
from vllm_circus.lifecycle.states import State
from vllm_circus.plan.types import ModelPlan

from .conftest import Story, loading, ready


def idle(story: Story, seconds: float = 60.0) -> tuple[e.Action, ...]:
    story.tell(e.Quiet())
    return story.after(seconds).tell(e.Quiet(), e.Tick())


def stopper(**changes: Any) -> Story:
    return Story(model_plan(idle=Idle(after=60.0, then="stop"), **changes))


def sleeper(**changes: Any) -> Story:
    return Story(model_plan(sleeps=True, idle=Idle(after=60.0, level=2), **changes))


def test_an_idle_model_sleeps_as_deeply_as_the_plan_says() -> None:
    story = ready(sleeper())
    idle(story, 59)
    assert story.state() is State.READY
    story.after(1).tell(e.Tick())
    assert (story.state(), story.life.reason) == (State.DRAINING, "nobody asked for it for 60 s")
    assert story.tell(e.Drained()) == (e.Sleep(7, 2),)


@pytest.mark.parametrize("plan", [model_plan(idle=Idle(after=60.0)), model_plan(idle=Idle(after=60.0, then="stop"))])
def test_an_idle_model_that_is_to_stop_or_cannot_sleep_ends_and_rests_on_call(plan: ModelPlan) -> None:
    story = ready(Story(plan))
    idle(story)
    assert story.tell(e.Drained()) == (e.Terminate(7),)
    story.tell(e.Exited(7, Diagnosis("exit code 0")), e.Cleaned(7))
    assert (story.state(), story.life.on_call) == (State.STOPPED, True)
    assert story.tell(e.Wanted()) == ()
    assert (story.state(), story.life.wished, story.life.on_call) == (State.QUEUED, True, False)


@pytest.mark.parametrize("word", [e.Asked(), e.Unheard()], ids=["a request", "nobody knows"])
def test_idleness_begins_anew_with(word: e.Event) -> None:
    story = ready(stopper())
    idle(story, 50)
    story.tell(word, e.Quiet())
    assert story.after(59).tell(e.Tick()) == ()
    assert story.state() is State.READY
    story.after(1).tell(e.Tick())
    assert story.state() is State.DRAINING


def test_idleness_waits_while_another_one_loads_on_the_gpu() -> None:
    story = ready(stopper())
    story.tell(e.Quiet())
    story.after(600).tell(e.Tick(calm=False))
    assert story.state() is State.READY
    story.tell(e.Tick())
    assert story.state() is State.DRAINING


def test_nobody_is_idle_by_what_was_heard_before_we_were_away() -> None:
    story = ready(stopper())
    story.tell(e.Quiet())
    story.after(600).tell(e.Resumed(), e.Tick())
    assert story.state() is State.READY


@pytest.mark.parametrize("event", [e.Asked(), e.Wanted(), e.StartWished()], ids=["in flight", "waits", "operator"])
def test_a_request_undoes_idleness_while_nothing_was_told_to_the_engine(event: e.Event) -> None:
    story = ready(sleeper())
    idle(story)
    assert story.tell(event) == ()
    assert (story.state(), story.life.on_call, story.life.pid) == (State.READY, False, 7)
    story.after(59).tell(e.Tick())
    assert story.state() is State.READY


def test_a_request_that_comes_too_late_brings_it_back() -> None:
    story = ready(sleeper())
    idle(story)
    story.tell(e.Drained(), e.Wanted(), e.Slept(7))
    assert (story.state(), story.life.wished) == (State.SLEEPING, True)
    story = ready(stopper())
    idle(story)
    story.tell(e.Drained(), e.Wanted(), e.Exited(7, Diagnosis("exit code 0")))
    assert (story.state(), story.life.wished) == (State.QUEUED, True)


def test_a_model_that_does_not_go_to_sleep_is_asked_again_after_as_long_a_time() -> None:
    story = ready(sleeper())
    idle(story)
    story.tell(e.Drained(), e.SleepRefused(7, "HTTP 500"))
    assert idle(story, 59) == ()
    assert story.state() is State.READY
    story.after(1).tell(e.Tick())
    assert story.state() is State.DRAINING


def test_no_request_undoes_an_operators_stop() -> None:
    rests_on_call = Story(life=Life(on_call=True))
    rests_on_call.tell(e.StopWished(), e.Wanted())
    assert (rests_on_call.state(), rests_on_call.life.on_call) == (State.STOPPED, False)
    drains_for_idleness = ready(stopper())
    idle(drains_for_idleness)
    drains_for_idleness.tell(e.StopWished(), e.Asked(), e.Wanted(), e.Drained(), e.Wanted())
    drains_for_idleness.tell(e.Exited(7, Diagnosis("exit code 0")), e.Wanted())
    assert drains_for_idleness.state() is State.STOPPED


def test_an_operators_stop_of_what_drains_for_long_has_a_limit() -> None:
    story = ready(Story(model_plan(exclusive="x")))
    story.tell(e.TurnOver(), e.StopWished())
    assert story.after(30).tell(e.Tick()) == (e.Terminate(7),)


def test_requests_do_not_forgive_crashes() -> None:
    story = Story(life=Life(on_call=True, tries=2, restarts=2))
    story.tell(e.Wanted())
    assert (story.life.tries, story.life.restarts) == (2, 2)
    story.tell(e.StopWished(), e.StartWished())
    assert (story.life.tries, story.life.restarts) == (0, 0)


def test_a_start_that_fails_is_not_waited_for_any_longer() -> None:
    story = Story(life=Life(on_call=True))
    story.tell(e.Wanted(), e.Admitted(), e.Spawned(7))
    assert (story.state(), story.life.wished) == (State.LOADING, True)
    story.tell(e.Exited(7, Diagnosis("exit code 1")))
    assert (story.state(), story.life.wished) == (State.QUEUED, False)


def test_requests_may_wait_for_what_an_operator_wants_but_not_for_the_first_load_of_a_set() -> None:
    story = Story()
    story.tell(e.StartWished(awaited=False))
    assert not story.life.wished
    assert loading(Story()).life.wished
    story = ready(Story())
    assert not story.life.wished
    story.tell(e.RestartWished())
    assert story.life.wished


def test_another_ones_turn_waits_for_every_request_however_long_it_runs() -> None:
    story = ready(sleeper(exclusive="x"))
    assert story.tell(e.TurnOver()) == ()
    for _ in range(1000):
        assert story.after(10).tell(e.Asked(), e.Tick(), e.Wanted()) == ()
    assert (story.state(), story.life.wished, story.life.on_call) == (State.DRAINING, True, True)
    story.tell(e.Drained(), e.Slept(7))
    assert (story.state(), story.life.waits) == (State.SLEEPING, 1010.0)


def test_a_hung_engine_does_not_keep_the_turn() -> None:
    story = ready(sleeper(exclusive="x"))
    story.tell(e.TurnOver(), e.ProbeFailed(story.now, "no answer within 5 s"))
    assert story.after(24).tell(e.Tick()) == ()
    assert story.after(1).tell(e.Tick()) == (e.Kill(7),)
    story.tell(e.Exited(7, Diagnosis("ended by SIGKILL")))
    assert (story.state(), story.life.on_call) == (State.STOPPED, True)
    assert story.life.reason == "did not answer for 25 s"


def test_an_unhealthy_engine_gives_way_within_its_time() -> None:
    story = ready(sleeper(exclusive="x"))
    for _ in range(2):
        story.after(2).tell(e.ProbeFailed(story.now, "no answer"))
    story.tell(e.TurnOver())
    assert (story.state(), story.life.ending) == (State.DRAINING, Ending.TURN)
    assert story.after(30).tell(e.Tick()) == (e.Terminate(7),)


def test_what_cannot_sleep_ends_for_anothers_turn_and_rests_on_call() -> None:
    for story in (ready(Story(model_plan(exclusive="x"))), ready(sleeper(exclusive="x"))):
        story.tell(e.TurnOver(), e.Drained(), e.SleepRefused(7, "HTTP 500"))
        assert story.state() is State.STOPPING
        story.tell(e.Exited(7, Diagnosis("exit code 0")))
        assert (story.state(), story.life.on_call) == (State.STOPPED, True)


def test_whoever_is_in_the_line_with_nobody_waiting_leaves_it() -> None:
    story = Story(model_plan(exclusive="x"))
    story.tell(e.StartWished(awaited=False), e.TurnOver())
    assert (story.state(), story.life.on_call) == (State.STOPPED, True)
    assert story.life.reason == "another model of `x` has the turn; a request brings it back"
    story.tell(e.Wanted(), e.TurnOver())
    assert story.state() is State.QUEUED


def test_the_crash_of_one_that_left_the_line_stays_told() -> None:
    story = ready(Story(model_plan(exclusive="x")))
    story.tell(e.Exited(7, Diagnosis("exit code 1", "read the log")), e.TurnOver())
    assert (story.state(), story.life.reason, story.life.fix) == (State.STOPPED, "exit code 1", "read the log")
