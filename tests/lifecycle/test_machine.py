from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.plans import model_plan
from vllm_circus.config.models import Probe, Restart
from vllm_circus.lifecycle import events as e
from vllm_circus.lifecycle.events import Moment
from vllm_circus.lifecycle.life import After, Diagnosis, Life
from vllm_circus.lifecycle.machine import resume
from vllm_circus.lifecycle.states import State
from vllm_circus.lifecycle.steps import KILL_AGAIN, START_PATIENCE

from .conftest import Story, loading, ready


def crash(story: Story, cause: str = "exit code 1") -> tuple[e.Action, ...]:
    assert story.life.pid is not None
    actions = story.tell(e.Exited(story.life.pid, Diagnosis(cause)))
    story.tell(e.Cleaned(story.life.dead or 0))
    return actions


def test_a_wish_queues_the_scheduler_admits_circus_starts_a_probe_makes_ready() -> None:
    story = Story()
    assert story.tell(e.StartWished()) == ()
    assert story.state() is State.QUEUED
    assert story.tell(e.Admitted()) == (e.Start(),)
    assert story.state() is State.LOADING
    assert story.tell(e.Spawned(7)) == ()
    assert (story.life.pid, story.life.started_at) == (7, story.now + 1e9)
    story.tell(e.PhaseSeen("loading weights"))
    assert story.life.phase == "loading weights"
    story.after(40).tell(e.ProbeOk(story.now))
    assert (story.state(), story.life.phase, story.life.since_at) == (State.READY, "", story.now + 1e9)


def test_a_good_answer_before_there_is_a_process_is_somebody_elses() -> None:
    story = Story()
    story.tell(e.StartWished(), e.Admitted(), e.ProbeOk(story.now))
    assert story.state() is State.LOADING
    asked = story.now
    story.after(1).tell(e.Spawned(7), e.ProbeOk(asked))
    assert story.state() is State.LOADING


def test_loading_is_never_ended_for_being_slow() -> None:
    story = loading(Story())
    for _ in range(1000):
        assert story.after(60).tell(e.ProbeFailed(story.now, "connection refused"), e.Tick()) == ()
    assert (story.state(), story.life.reason) == (State.LOADING, "")


def test_loading_past_the_start_timeout_is_ended_and_tried_again() -> None:
    story = loading(Story(model_plan(start_timeout=60.0)))
    assert story.after(59).tell(e.Tick()) == ()
    assert story.after(1).tell(e.Tick()) == (e.Terminate(7),)
    assert story.tell(e.Exited(7, Diagnosis("exit code 0"))) == (e.CleanUp(7),)
    assert (story.state(), story.life.reason, story.life.tries) == (State.QUEUED, "not ready within 60 s", 1)


def test_a_wrong_answer_while_loading_is_told() -> None:
    story = loading(Story())
    story.tell(e.ProbeFailed(story.now, "does not serve a", answered=True))
    assert (story.state(), story.life.reason) == (State.LOADING, "does not serve a")
    story.tell(e.ProbeOk(story.now))
    assert (story.state(), story.life.reason) == (State.READY, "")


def test_the_first_restart_is_at_once_and_then_the_waits_grow_to_the_cap_until_it_has_failed() -> None:
    story = loading(Story())
    waits = []
    while story.state() is not State.FAILED:
        assert crash(story) == (e.CleanUp(7),)
        before = story.now
        while story.state() is State.BACKOFF:
            story.after(0.25).tell(e.Tick())
        waits.append(story.now - before)
        if story.tell(e.Admitted()):
            story.tell(e.Spawned(7))
    assert waits == [0, 10, 20, 40, 80, 160, 300, 0]
    assert (story.life.tries, story.life.reason) == (8, "exit code 1")
    assert story.after(1e6).tell(e.Tick(), e.Admitted()) == ()
    assert story.state() is State.FAILED


def test_a_server_that_exits_at_once_is_started_at_most_six_times_in_two_minutes() -> None:
    story = Story()
    story.tell(e.StartWished())
    starts, end = 0, story.now + 120
    while story.now < end:
        if story.tell(e.Admitted()):
            starts += 1
            story.tell(e.Spawned(starts), e.Exited(starts, Diagnosis("exit code 3")), e.Cleaned(starts))
        story.after(0.25).tell(e.Tick())
    assert starts == 5


def test_health_for_long_enough_forgives_earlier_crashes() -> None:
    story = ready(Story())
    crash(story)
    ready(story)
    assert story.life.tries == 1
    story.after(600).tell(e.Tick())
    assert (story.life.tries, story.life.restarts) == (0, 0)


def test_a_crash_after_long_health_is_no_failed_start_and_restarts_at_once() -> None:
    story = ready(Story(model_plan(restart=Restart(max_tries=1))))
    story.after(600)
    crash(story, "ended by SIGKILL")
    assert (story.state(), story.life.tries, story.life.reason) == (State.QUEUED, 0, "ended by SIGKILL")


def test_exit_code_zero_that_nobody_asked_for_is_a_crash() -> None:
    story = ready(Story())
    crash(story, "exit code 0")
    assert (story.state(), story.life.tries) == (State.QUEUED, 1)


def test_the_policy_never_leaves_a_crashed_model_to_the_operator() -> None:
    story = ready(Story(model_plan(restart=Restart(policy="never"))))
    crash(story)
    assert story.state() is State.FAILED
    story.tell(e.StartWished())
    assert (story.state(), story.life.tries, story.life.reason) == (State.QUEUED, 0, "")


def test_without_a_limit_it_is_tried_for_ever() -> None:
    story = loading(Story(model_plan(restart=Restart(max_tries=None, factor=10))))
    for _ in range(400):
        crash(story)
        story.after(300).tell(e.Tick(), e.Admitted(), e.Spawned(7))
    assert story.state() is State.LOADING


def test_a_start_that_circus_refuses_is_a_crash() -> None:
    story = Story()
    story.tell(e.StartWished(), e.Admitted(), e.StartRefused(Diagnosis("no such program")))
    assert (story.state(), story.life.tries, story.life.reason) == (State.QUEUED, 1, "no such program")


def test_a_start_that_is_never_heard_of_again_is_given_up() -> None:
    story = Story()
    story.tell(e.StartWished(), e.Admitted())
    story.after(START_PATIENCE - 1).tell(e.Tick())
    assert story.state() is State.LOADING
    story.after(1).tell(e.Tick())
    assert (story.state(), story.life.reason) == (State.QUEUED, "circus did not start it")


def test_it_is_not_started_beside_what_its_predecessor_left() -> None:
    story = ready(Story())
    assert story.tell(e.Exited(7, Diagnosis("exit code 1"))) == (e.CleanUp(7),)
    assert story.life.remains == (7,)
    assert story.tell(e.Admitted()) == ()
    story.tell(e.Cleaned(7))
    assert story.tell(e.Admitted()) == (e.Start(),)


def test_failed_probes_take_it_out_and_one_good_one_brings_it_back() -> None:
    story = ready(Story())
    story.after(2).tell(e.ProbeFailed(story.now, "no answer"))
    assert story.state() is State.READY
    story.after(2).tell(e.ProbeFailed(story.now, "no answer"))
    assert (story.state(), story.life.reason) == (State.UNHEALTHY, "no answer")
    story.after(2).tell(e.ProbeOk(story.now))
    assert (story.state(), story.life.reason, story.life.failures) == (State.READY, "", 0)


def test_a_probe_that_was_overtaken_by_a_good_one_does_not_count() -> None:
    story = ready(Story(model_plan(probe=Probe(failures=1))))
    early = story.after(2).now
    story.after(2).tell(e.ProbeOk(story.now), e.ProbeFailed(early, "no answer within 5 s"))
    assert story.state() is State.READY


def test_silence_for_long_enough_ends_it_by_force_and_counts_as_a_crash() -> None:
    story = ready(Story())
    silent_since = story.after(2).now
    while story.state() in {State.READY, State.UNHEALTHY}:
        story.tell(e.ProbeFailed(story.now, "no answer within 5 s"))
        actions = story.after(1).tell(e.Tick())
    assert actions == (e.Kill(7),)
    assert story.now - silent_since == 25
    assert story.after(KILL_AGAIN).tell(e.Tick()) == (e.Kill(7),)
    assert crash(story, "ended by SIGKILL") == (e.CleanUp(7),)
    assert (story.state(), story.life.tries) == (State.QUEUED, 1)
    assert story.life.reason == "did not answer for 25 s: no answer within 5 s"


def test_silence_ends_nothing_where_that_is_turned_off() -> None:
    story = ready(Story(model_plan(probe=Probe(restart_after=None))))
    for _ in range(100):
        story.after(10).tell(e.ProbeFailed(story.now, "no answer"), e.Tick())
    assert story.state() is State.UNHEALTHY


def test_silence_while_we_were_away_is_not_the_engines() -> None:
    story = ready(Story())
    for _ in range(3):
        story.after(2).tell(e.ProbeFailed(story.now, "no answer"))
    story.after(100)
    assert story.tell(e.Resumed(), e.Tick()) == ()
    assert story.state() is State.UNHEALTHY
    story.tell(e.ProbeOk(story.now))
    assert story.state() is State.READY


def test_stopping_drains_then_terminates_then_kills() -> None:
    story = ready(Story())
    assert story.tell(e.StopWished()) == ()
    assert story.state() is State.DRAINING
    assert story.after(3).tell(e.Tick()) == ()
    assert story.tell(e.Drained()) == (e.Terminate(7),)
    assert story.state() is State.STOPPING
    assert story.after(14).tell(e.Tick()) == ()
    assert story.after(1).tell(e.Tick()) == (e.Kill(7),)
    assert story.after(1).tell(e.Tick()) == ()
    assert story.tell(e.Exited(7, Diagnosis("ended by SIGKILL"))) == (e.CleanUp(7),)
    assert (story.state(), story.life.reason, story.life.tries) == (State.STOPPED, "", 0)


def test_draining_ends_after_its_time() -> None:
    story = ready(Story())
    story.tell(e.StopWished())
    assert story.after(29).tell(e.Tick()) == ()
    assert story.after(1).tell(e.Tick()) == (e.Terminate(7),)


def test_restarting_drains_stops_and_queues() -> None:
    story = ready(Story())
    story.tell(e.RestartWished(), e.Drained())
    assert story.life.after is After.START
    story.tell(e.Exited(7, Diagnosis("exit code 0")), e.Cleaned(7))
    assert (story.state(), story.life.tries) == (State.QUEUED, 0)


@pytest.mark.parametrize(
    ("first", "then", "end"),
    [
        (e.StopWished(), e.StartWished(), State.QUEUED),
        (e.StopWished(), e.RestartWished(), State.QUEUED),
        (e.RestartWished(), e.StopWished(), State.STOPPED),
        (e.RestartWished(), e.Withdrawn(7), State.STOPPED),
    ],
)
@pytest.mark.parametrize("drained", [False, True])
def test_the_last_wish_counts_while_it_ends(first: e.Event, then: e.Event, end: State, drained: bool) -> None:
    story = ready(Story())
    story.tell(first)
    if drained:
        story.tell(e.Drained())
    story.tell(then, e.Drained(), e.Exited(7, Diagnosis("exit code 0")))
    assert story.state() is end


def test_stopping_what_loads_needs_no_draining() -> None:
    story = loading(Story())
    assert story.tell(e.StopWished()) == (e.Terminate(7),)
    story.tell(e.Exited(7, Diagnosis("exit code 143")))
    assert story.state() is State.STOPPED


def test_stopping_what_was_asked_for_but_is_not_there_yet_waits_for_it() -> None:
    story = Story()
    story.tell(e.StartWished(), e.Admitted())
    assert story.tell(e.StopWished()) == ()
    assert story.state() is State.STOPPING
    assert story.after(3).tell(e.Spawned(7)) == (e.Terminate(7),)
    assert story.after(14).tell(e.Tick()) == ()
    assert story.after(1).tell(e.Tick()) == (e.Kill(7),)


@pytest.mark.parametrize(
    "event", [e.StartRefused(Diagnosis("circus does not answer")), e.Tick()], ids=["refused", "never heard of"]
)
def test_stopping_what_never_came_ends_too(event: e.Event) -> None:
    story = Story()
    story.tell(e.StartWished(), e.Admitted(), e.StopWished())
    story.after(START_PATIENCE).tell(event)
    assert story.state() is State.STOPPED


@pytest.mark.parametrize("begin", [loading, ready])
def test_a_stop_through_circus_is_respected(begin: Callable[[Story], Story]) -> None:
    story = begin(Story())
    assert story.tell(e.Withdrawn(7)) == ()
    story.tell(e.Exited(7, Diagnosis("ended by SIGTERM")), e.Cleaned(7))
    assert story.state() is State.STOPPED
    for _ in range(100):
        assert story.after(10).tell(e.Tick(), e.Admitted()) == ()
    assert (story.state(), story.life.reason) == (State.STOPPED, "stopped through circus")


def test_a_start_through_circus_is_loading() -> None:
    story = ready(Story())
    story.tell(e.Withdrawn(7), e.Exited(7, Diagnosis("ended by SIGTERM")), e.Cleaned(7))
    assert story.tell(e.Spawned(8)) == ()
    assert (story.state(), story.life.pid, story.life.reason) == (State.LOADING, 8, "")


def test_a_kill_of_another_process_means_nothing() -> None:
    story = ready(Story())
    story.tell(e.Withdrawn(99), e.Exited(99, Diagnosis("exit code 1")))
    assert story.state() is State.READY


def test_a_process_that_replaces_another_unheard_starts_over_and_the_old_ones_session_is_cleaned() -> None:
    story = ready(Story())
    assert story.tell(e.Spawned(8)) == (e.CleanUp(7),)
    assert (story.state(), story.life.pid, story.life.remains) == (State.LOADING, 8, (7,))
    story.tell(e.Spawned(7), e.Exited(7, Diagnosis("exit code 1")))  # late news of the old one
    assert (story.state(), story.life.pid) == (State.LOADING, 8)


def test_more_about_a_death_is_told_until_it_is_ready_again() -> None:
    story = loading(Story())
    crash(story, "ended")
    story.tell(e.Explained(7, Diagnosis("exit code 1: ValueError: no")))
    assert story.life.reason == "exit code 1: ValueError: no"
    story.tell(e.Admitted(), e.Explained(99, Diagnosis("another's")))
    assert story.life.reason == "exit code 1: ValueError: no"
    story.tell(e.Spawned(8), e.ProbeOk(story.now), e.Explained(7, Diagnosis("late")))
    assert (story.state(), story.life.reason) == (State.READY, "")


def resumed(story: Story, pid: int | None) -> tuple[e.Action, ...]:
    story.life, actions = resume(story.life, pid, Moment(story.now, 0.0), story.plan)
    return actions


def test_a_new_keeper_leaves_what_runs_alone() -> None:
    story = ready(Story())
    before = story.life
    assert resumed(story.after(5), 7) == ()
    assert story.life == before


def test_a_new_keeper_notices_what_died_meanwhile() -> None:
    story = ready(Story())
    assert resumed(story, None) == (e.CleanUp(7),)
    assert (story.state(), story.life.tries) == (State.QUEUED, 1)


def test_a_new_keeper_notices_what_was_started_meanwhile() -> None:
    story = Story()
    assert resumed(story, 7) == ()
    assert (story.state(), story.life.pid) == (State.LOADING, 7)


def test_a_new_keeper_starts_what_was_to_be_started() -> None:
    story = Story()
    story.tell(e.StartWished(), e.Admitted())
    assert resumed(story, None) == ()
    assert (story.state(), story.life.tries) == (State.QUEUED, 0)


def test_a_new_keeper_goes_on_ending_what_was_to_end() -> None:
    story = ready(Story())
    story.tell(e.StopWished(), e.Drained())
    assert resumed(story, 7) == (e.Terminate(7),)
    assert story.state() is State.STOPPING
    story.life = replace(story.life, pid=None)
    assert resumed(story, None) == ()
    assert story.state() is State.STOPPED


def test_a_new_keeper_goes_on_cleaning_up() -> None:
    story = Story(life=Life(state=State.QUEUED, remains=(5, 6)))
    assert resumed(story, None) == (e.CleanUp(5), e.CleanUp(6))


def test_a_new_keeper_does_not_count_the_silence_before_it() -> None:
    story = ready(Story())
    for _ in range(3):
        story.after(2).tell(e.ProbeFailed(story.now, "no answer"))
    resumed(story.after(60), 7)
    assert story.tell(e.Tick()) == ()
    assert story.state() is State.UNHEALTHY
