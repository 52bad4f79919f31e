from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.plans import model_plan
from vllm_circus.config.models import Probe
from vllm_circus.lifecycle import events as e
from vllm_circus.lifecycle.events import Moment
from vllm_circus.lifecycle.life import After, Diagnosis
from vllm_circus.lifecycle.machine import resume
from vllm_circus.lifecycle.states import State
from vllm_circus.lifecycle.steps import SLEEP_PATIENCE, WAKE_PATIENCE

from .conftest import Story, asleep, loading, ready


def sleeper(**changes: Any) -> Story:
    return Story(model_plan(sleeps=True, **changes))


def waking(story: Story) -> Story:
    asleep(story).tell(e.WakeWished(), e.Admitted())
    return story


def test_it_is_drained_then_put_to_sleep_then_on_call() -> None:
    story = ready(sleeper())
    assert story.tell(e.SleepWished(2)) == ()
    assert (story.state(), story.life.after, story.life.on_call) == (State.DRAINING, After.SLEEP, True)
    assert story.tell(e.Drained()) == (e.Sleep(7, 2),)
    assert story.tell(e.Drained()) == (), "it is told once"
    assert story.tell(e.Slept(7)) == ()
    assert (story.state(), story.life.pid, story.life.on_call, story.life.level) == (State.SLEEPING, 7, True, 2)


def test_a_model_without_sleep_mode_is_never_put_to_sleep() -> None:
    story = ready(Story())
    assert story.tell(e.SleepWished(1)) == ()
    assert story.state() is State.READY


def test_an_operators_sleep_cuts_no_request_but_is_given_up() -> None:
    story = ready(sleeper())
    story.tell(e.SleepWished(1))
    assert story.after(29).tell(e.Tick()) == ()
    assert story.state() is State.DRAINING
    assert story.after(1).tell(e.Tick()) == ()
    assert (story.state(), story.life.on_call) == (State.READY, False)
    assert story.life.reason == "not put to sleep: requests still ran after 30 s"


def test_an_engine_that_refuses_to_sleep_serves_on_and_says_why() -> None:
    story = ready(sleeper())
    assert story.tell(e.SleepWished(1), e.Drained(), e.SleepRefused(7, "HTTP 500")) == ()
    assert (story.state(), story.life.reason) == (State.READY, "it does not go to sleep: HTTP 500")


def test_an_engine_that_never_says_whether_it_sleeps_is_ended_and_rests_on_call() -> None:
    story = ready(sleeper())
    story.tell(e.SleepWished(1), e.Drained())
    assert story.after(SLEEP_PATIENCE).tell(e.Tick()) == (e.Kill(7),)
    story.tell(e.Exited(7, Diagnosis("ended by SIGKILL", code=-9)))
    assert (story.state(), story.life.on_call) == (State.STOPPED, True)
    assert story.life.crash is not None
    assert story.life.crash.why.cause == "did not say within 180 s that it sleeps"
    assert story.life.crash.why.code == -9


@pytest.mark.parametrize("event", [e.ProbeOk(1000.0), e.PhaseSeen("starting")], ids=["ready", "loading"])
def test_an_engine_that_sleeps_unknown_to_its_keeper_gets_no_request_before_it_is_woken_up(event: e.Event) -> None:
    story = loading(sleeper())
    story.tell(event, e.FoundAsleep(8))
    assert story.state() is not State.SLEEPING
    story.tell(e.FoundAsleep(7))
    assert (story.state(), story.life.on_call) == (State.SLEEPING, True)
    assert story.tell(e.Wanted(), e.Admitted()) == (e.Wake(7, 2),), "that wakes up from level 1, too"


@pytest.mark.parametrize("wish", [e.WakeWished(), e.StartWished(), e.Wanted()], ids=["wake", "start", "request"])
def test_it_wakes_up_in_its_turn_and_a_probe_says_that_it_is_ready(wish: e.Event) -> None:
    story = asleep(sleeper(), level=2)
    assert story.tell(wish) == ()
    assert (story.state(), story.life.wished, story.life.waits) == (State.SLEEPING, True, story.now)
    assert story.tell(e.Admitted()) == (e.Wake(7, 2),)
    assert (story.state(), story.life.wished, story.life.on_call) == (State.WAKING, True, False)
    story.tell(e.ProbeOk(story.now))
    assert story.state() is State.WAKING, "its health page answers while it sleeps, too"
    asked = story.after(1).now
    story.after(1).tell(e.Woken(7), e.ProbeOk(asked))
    assert story.state() is State.WAKING
    story.after(1).tell(e.ProbeOk(story.now))
    assert (story.state(), story.life.wished, story.life.pid) == (State.READY, False, 7)


def test_the_scheduler_wakes_nobody_who_sleeps_in_peace() -> None:
    story = asleep(sleeper())
    assert story.tell(e.Admitted()) == ()
    assert story.after(1e6).tell(e.Tick()) == ()
    assert story.state() is State.SLEEPING


def test_an_operators_sleep_overrules_who_wanted_it_awake() -> None:
    story = asleep(sleeper())
    story.tell(e.Wanted(), e.SleepWished(1))
    assert story.tell(e.Admitted()) == ()
    assert (story.state(), story.life.waits) == (State.SLEEPING, None)


def test_an_engine_that_refuses_to_wake_up_gets_a_new_process() -> None:
    story = waking(sleeper())
    assert story.tell(e.WakeRefused(7, "HTTP 500")) == (e.Kill(7),)
    story.tell(e.Exited(7, Diagnosis("ended by SIGKILL", code=-9)), e.Cleaned(7))
    assert (story.state(), story.life.tries, story.life.wished) == (State.QUEUED, 1, False)
    assert story.life.reason == "it did not wake up: HTTP 500"


@pytest.mark.parametrize(
    ("woken", "limit", "words"),
    [
        (False, WAKE_PATIENCE, "it did not wake up within 600 s"),
        (True, Probe().restart_after, "it did not answer within 25 s"),
    ],
)
def test_silence_while_it_wakes_up_is_a_crash(woken: bool, limit: float, words: str) -> None:
    story = waking(sleeper())
    if woken:
        story.tell(e.Woken(7))
    assert story.after(limit - 1).tell(e.ProbeFailed(story.now, "no answer"), e.Tick()) == ()
    assert story.after(1).tell(e.Tick()) == (e.Kill(7),)
    assert story.life.reason == words


def test_a_start_timeout_limits_waking_up_as_well() -> None:
    story = waking(sleeper(start_timeout=20.0))
    assert story.after(20).tell(e.Tick()) == (e.Kill(7),)


def test_what_dies_asleep_is_a_crash_but_rests_until_it_is_asked_for() -> None:
    story = asleep(sleeper())
    assert story.tell(e.Exited(7, Diagnosis("killed for memory", "buy more", "oom", -9))) == (e.CleanUp(7),)
    assert (story.state(), story.life.on_call, story.life.tries) == (State.STOPPED, True, 0)
    assert (story.life.reason, story.life.fix) == ("killed for memory", "buy more")
    assert story.life.crash is not None
    story.tell(e.Explained(7, Diagnosis("killed for memory: 60 GiB")))
    assert story.life.crash.pid == 7
    assert story.life.reason == "killed for memory: 60 GiB"
    story.tell(e.Cleaned(7), e.Wanted())
    assert story.state() is State.QUEUED


def test_what_dies_asleep_while_somebody_waits_for_it_is_started_anew() -> None:
    story = asleep(sleeper())
    story.tell(e.Wanted(), e.Exited(7, Diagnosis("exit code 1")))
    assert (story.state(), story.life.on_call) == (State.QUEUED, False)


@pytest.mark.parametrize("begin", [asleep, waking])
@pytest.mark.parametrize(("wish", "end"), [(e.StopWished(), State.STOPPED), (e.RestartWished(), State.QUEUED)])
def test_stopping_what_sleeps_or_wakes_up_needs_no_draining(
    begin: Callable[[Story], Story], wish: e.Event, end: State
) -> None:
    story = begin(sleeper())
    assert story.tell(wish) == (e.Terminate(7),)
    story.tell(e.Exited(7, Diagnosis("exit code 0")))
    assert (story.state(), story.life.on_call) == (end, False)


@pytest.mark.parametrize(("wish", "end"), [(e.StopWished(), State.STOPPED), (e.RestartWished(), State.QUEUED)])
def test_stopping_what_falls_asleep_does_not_wait_for_that(wish: e.Event, end: State) -> None:
    story = ready(sleeper())
    story.tell(e.SleepWished(1), e.Drained())
    assert story.tell(wish) == (e.Terminate(7),)
    story.tell(e.Slept(7), e.Exited(7, Diagnosis("exit code 0")))
    assert story.state() is end


def test_a_wish_to_wake_what_is_falling_asleep_comes_true_afterwards() -> None:
    story = ready(sleeper())
    story.tell(e.SleepWished(1), e.Drained(), e.WakeWished(), e.Slept(7))
    assert (story.state(), story.life.wished) == (State.SLEEPING, True)


def test_a_wish_to_wake_what_only_drains_undoes_the_sleep() -> None:
    story = ready(sleeper())
    story.tell(e.SleepWished(1), e.WakeWished())
    assert story.state() is State.READY


@pytest.mark.parametrize("begin", [asleep, waking])
def test_a_stop_through_circus_is_respected_in_its_sleep(begin: Callable[[Story], Story]) -> None:
    story = begin(sleeper())
    story.tell(e.Withdrawn(7), e.Exited(7, Diagnosis("ended by SIGTERM")), e.Cleaned(7), e.Wanted())
    assert (story.state(), story.life.on_call) == (State.STOPPED, False)


def resumed(story: Story, pid: int | None) -> tuple[e.Action, ...]:
    story.life, actions = resume(story.life, pid, Moment(story.now, 0.0), story.plan)
    return actions


def test_what_another_process_says_of_its_sleep_means_nothing() -> None:
    story = ready(sleeper())
    story.tell(e.SleepWished(1), e.Drained())
    assert story.tell(e.Slept(6), e.SleepRefused(6, "no")) == ()
    assert story.state() is State.DRAINING
    story.tell(e.Slept(7), e.WakeWished(), e.Admitted())
    assert story.tell(e.Woken(6), e.WakeRefused(6, "no")) == ()
    assert (story.state(), story.life.woken) == (State.WAKING, None)


def test_a_new_keeper_leaves_what_sleeps_alone() -> None:
    story = asleep(sleeper())
    before = story.life
    assert resumed(story.after(500), 7) == ()
    assert story.life == before


def test_a_new_keeper_asks_again_for_what_may_have_been_lost() -> None:
    story = ready(sleeper())
    story.tell(e.SleepWished(2), e.Drained())
    assert resumed(story.after(500), 7) == (e.Sleep(7, 2),)
    assert story.tell(e.Tick()) == (), "the time when nobody watched does not count"
    story.tell(e.Slept(7), e.WakeWished(), e.Admitted())
    assert resumed(story.after(1000), 7) == (e.Wake(7, 2),)
    assert story.tell(e.Tick()) == ()
    story.tell(e.Woken(7))
    assert resumed(story.after(1000), 7) == ()
    assert story.tell(e.Tick()) == ()


def test_a_new_keeper_notices_that_it_died_in_its_sleep() -> None:
    story = asleep(sleeper())
    assert resumed(story, None) == (e.CleanUp(7),)
    assert (story.state(), story.life.on_call) == (State.STOPPED, True)


def test_a_process_in_place_of_one_that_slept_loads() -> None:
    story = asleep(sleeper())
    assert story.tell(e.Spawned(8)) == (e.CleanUp(7),)
    assert (story.state(), story.life.on_call, story.life.remains) == (State.LOADING, False, (7,))


def test_what_it_was_started_with_is_kept_while_it_lives() -> None:
    story = ready(Story(model_plan(digest="one", aliases=("alias",))))
    story.plan = replace(story.plan, digest="two", serves=("a",))
    assert (story.life.digest, story.life.names) == ("one", ("a", "alias"))
    story.tell(e.Exited(7, Diagnosis("exit code 1")), e.Cleaned(7), e.Admitted(), e.Spawned(8))
    assert (story.life.digest, story.life.names) == ("two", ("a",))
