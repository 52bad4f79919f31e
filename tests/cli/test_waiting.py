"""What counts as done when an operator waits."""

from __future__ import annotations

import pytest

from vllm_circus.bus.messages import ModelState
from vllm_circus.cli.waiting import Reporter, Verdict, check_failed, judge_restart, judge_start, judge_stop
from vllm_circus.errors import NotRunning
from vllm_circus.lifecycle.states import State
from vllm_circus.paths import Instance


def state(
    kind: State, *, since: float = 10.0, started: float | None = None, tries: int = 0, reason: str = ""
) -> ModelState:
    return ModelState("qwen", kind, reason, since_at=since, started_at=started, tries=tries)


FAILED = state(State.FAILED, since=1.0)


@pytest.mark.parametrize(
    ("before", "now", "verdict"),
    [
        (None, state(State.STOPPED), Verdict.WAITING),
        (None, state(State.QUEUED), Verdict.WAITING),
        (None, state(State.LOADING), Verdict.WAITING),
        (None, state(State.READY), Verdict.DONE),
        (None, FAILED, Verdict.FAILED),
        (None, state(State.BACKOFF, tries=1), Verdict.WAITING),
        (None, state(State.BACKOFF, tries=2), Verdict.FAILED),
        (FAILED, FAILED, Verdict.WAITING),
        (FAILED, state(State.QUEUED), Verdict.WAITING),
        (FAILED, state(State.FAILED), Verdict.FAILED),
        (state(State.STOPPED), state(State.STOPPED), Verdict.WAITING),
        (FAILED, state(State.STOPPED), Verdict.FAILED),
        (state(State.READY), state(State.READY), Verdict.DONE),
    ],
)
def test_a_start_is_over_when_the_model_is_ready_or_hopeless(
    before: ModelState | None, now: ModelState, verdict: Verdict
) -> None:
    assert judge_start(before, now) is verdict


OLD = state(State.READY, since=1.0, started=1.0)


@pytest.mark.parametrize(
    ("before", "now", "verdict"),
    [
        (OLD, OLD, Verdict.WAITING),
        (OLD, state(State.DRAINING, started=1.0), Verdict.WAITING),
        (OLD, state(State.LOADING, started=20.0), Verdict.WAITING),
        (OLD, state(State.READY, since=25.0, started=20.0), Verdict.DONE),
        (OLD, state(State.FAILED, since=25.0), Verdict.FAILED),
        (state(State.STOPPED), state(State.STOPPED), Verdict.WAITING),
        (state(State.STOPPED), state(State.READY, started=20.0), Verdict.DONE),
    ],
)
def test_a_restart_is_over_when_another_process_is_ready(before: ModelState, now: ModelState, verdict: Verdict) -> None:
    assert judge_restart(before, now) is verdict


def test_a_stop_is_over_when_the_model_is_stopped() -> None:
    assert judge_stop(OLD, state(State.DRAINING)) is Verdict.WAITING
    assert judge_stop(OLD, state(State.STOPPED)) is Verdict.DONE
    assert judge_stop(OLD, state(State.LOADING, started=1.0)) is Verdict.WAITING


def test_a_stop_that_somebody_else_undid_is_given_up() -> None:
    assert judge_stop(OLD, state(State.QUEUED)) is Verdict.WAITING
    assert judge_stop(OLD, state(State.LOADING, started=20.0)) is Verdict.FAILED
    assert judge_stop(OLD, state(State.READY, started=20.0)) is Verdict.FAILED


def test_each_change_is_told_once() -> None:
    told: list[str] = []
    report = Reporter(False, told.append)
    loading = ModelState("qwen", State.LOADING, phase="loading weights\x1b[2J", since_at=10.0)
    for seen in (loading, loading, state(State.BACKOFF, reason="died"), state(State.READY)):
        report.show({"qwen": seen}, 12.0)
    assert told == ["qwen: loading (loading weights)", "qwen: backoff (died)", "qwen: ready"]


def test_failures_are_told_with_their_reasons(instance: Instance) -> None:
    failed = {"b": state(State.FAILED, reason="CUDA out of memory"), "a": state(State.BACKOFF)}
    with pytest.raises(NotRunning) as caught:
        check_failed(instance, failed)
    assert str(caught.value) == "a is not ready: backoff\n       b is not ready: CUDA out of memory"
    assert caught.value.hint == "see `vllm-circus logs a`"
    check_failed(instance, {})
