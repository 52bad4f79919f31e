"""Both kinds of hang, and health that flaps."""

from __future__ import annotations

import pytest

from tests.plans import model_plan
from vllm_circus.config.models import Probe
from vllm_circus.lifecycle import events as e
from vllm_circus.lifecycle.life import Diagnosis
from vllm_circus.lifecycle.states import State

from .conftest import Story, ready


def counted(story: Story, running: float, iterations: float, after: float = 2.0) -> tuple[e.Action, ...]:
    return story.after(after).tell(e.Counted(story.now, running, iterations))


def test_requests_that_run_while_no_step_is_made_for_long_enough_are_a_hang() -> None:
    story = ready(Story())
    assert counted(story, 0, 100) == ()
    assert counted(story, 3, 100, after=500) == (), "there was nothing to do until now"
    assert counted(story, 3, 100, after=119) == ()
    assert counted(story, 3, 100, after=1) == (e.Kill(7),)
    assert story.state() is State.STOPPING
    story.tell(e.Exited(7, Diagnosis("ended by SIGKILL", code=-9, evidence=("the last line",))))
    assert (story.state(), story.life.tries) == (State.QUEUED, 1)
    why = story.life.crash.why if story.life.crash else None
    assert why is not None
    assert why.cause == "it hung: 3 requests ran and the engine made no step for 120 s"
    assert (why.signature, why.code, why.evidence) == ("hung", -9, ("the last line",))
    assert "hang_after" in why.fix


def test_what_is_learned_of_its_death_does_not_cover_up_why_we_ended_it() -> None:
    story = ready(Story())
    counted(story, 1, 5)
    counted(story, 1, 5)
    counted(story, 1, 5, after=120)
    story.tell(e.Exited(7, Diagnosis("it is gone")), e.Explained(7, Diagnosis("ended by SIGKILL", code=-9)))
    assert story.life.reason.startswith("it hung")
    assert story.life.crash is not None
    assert story.life.crash.why.code == -9


def test_a_step_or_the_end_of_the_requests_is_no_hang() -> None:
    story = ready(Story())
    for _ in range(3):
        for running, iterations in ((1, 7), (1, 8), (0, 8), (1, 9)):
            counted(story, running, iterations)
            assert counted(story, running, iterations, after=100) == ()
    assert story.state() is State.READY


def test_answers_that_need_no_step_hide_no_hang() -> None:
    story = ready(Story())
    counted(story, 1, 7)
    for _ in range(12):
        assert counted(story, 1, 7, after=10) == ()
        story.tell(e.Answering())  # of its page of models, or to a prompt to be cut into tokens
    assert counted(story, 1, 7, after=10) == (e.Kill(7),)


def test_an_engine_of_which_a_process_was_stopped_is_killed_and_started_again() -> None:
    story = ready(Story())
    assert story.tell(e.Halted(8, 9)) == (), "another session's"
    assert story.tell(e.Halted(7, 9)) == (e.Kill(7),)
    story.tell(e.Exited(7, Diagnosis("ended by SIGKILL", code=-9)))
    assert story.state() is State.QUEUED
    assert story.life.reason == "its process 9 was stopped (SIGSTOP) and did not go on"


def test_a_stopped_engine_that_is_to_end_ends_when_that_is_due() -> None:
    story = ready(Story())
    story.tell(e.StopWished())
    assert story.tell(e.Halted(7, 9)) == ()
    assert story.state() is State.DRAINING


def test_nothing_is_restarted_for_silence_where_that_is_not_wanted() -> None:
    story = ready(Story(model_plan(probe=Probe(restart_after=None))))
    assert story.tell(e.Halted(7, 9)) == ()
    assert story.state() is State.READY


def test_counters_of_a_predecessor_and_of_times_that_nobody_watched_do_not_count() -> None:
    story = ready(Story())
    counted(story, 1, 7)
    counted(story, 1, 7)
    story.after(500).tell(e.Resumed())
    assert counted(story, 1, 7) == ()
    story.tell(e.Counted(1.0, 1, 7))
    assert counted(story, 1, 7, after=100) == ()


def test_hangs_are_not_looked_for_where_that_is_turned_off() -> None:
    story = ready(Story(model_plan(probe=Probe(hang_after=None))))
    for _ in range(100):
        assert counted(story, 1, 7, after=100) == ()


def test_a_model_that_answers_clients_stays_in_the_routes_whatever_its_health_page_says() -> None:
    story = ready(Story())
    for _ in range(100):
        story.after(1).tell(e.Answering(), e.ProbeFailed(story.now, "no answer within 5 s"), e.Tick())
        assert story.state() is State.READY
    story.after(7).tell(e.ProbeFailed(story.now, "no answer within 5 s"))
    assert story.state() is State.UNHEALTHY


def test_silence_counts_from_the_last_sign_of_life_of_either_kind() -> None:
    story = ready(Story())
    for _ in range(3):
        story.after(2).tell(e.ProbeFailed(story.now, "no answer"))
    assert story.state() is State.UNHEALTHY
    story.after(10).tell(e.Answering())
    assert story.after(24).tell(e.Tick()) == ()
    assert story.after(1).tell(e.Tick()) == (e.Kill(7),)


def test_answers_to_clients_of_the_predecessor_are_no_sign_of_life() -> None:
    story = ready(Story())
    story.tell(e.Answering(), e.Exited(7, Diagnosis("exit code 1")), e.Cleaned(7), e.Admitted(), e.Spawned(8))
    story.tell(e.Answering(), e.ProbeOk(story.now))
    for _ in range(2):
        story.tell(e.ProbeFailed(story.now, "no answer"))
    assert story.state() is State.UNHEALTHY


@pytest.mark.parametrize(("wish", "then"), [(e.StopWished(), State.STOPPED), (e.RestartWished(), State.QUEUED)])
def test_a_hang_while_it_drains_undoes_no_wish_of_the_operators(wish: e.Event, then: State) -> None:
    story = ready(Story())
    for _ in range(3):
        counted(story, 1, 7, after=95)
    story.tell(wish)
    assert counted(story, 1, 7, after=29) == ()
    assert story.state() is State.DRAINING
    assert story.after(1).tell(e.Tick()) == (e.Terminate(7),)
    story.tell(e.Exited(7, Diagnosis("ended by SIGKILL", code=-9)))
    assert (story.state(), story.life.tries, story.life.crash) == (then, 0, None)
