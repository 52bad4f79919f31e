"""Waiting for a start on a screen: when there is no hope, and what is said when the screen has gone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from vllm_circus.bus.messages import CountsMessage, ModelsMessage, ModelState, WorkerState
from vllm_circus.cli import starting
from vllm_circus.cli.starting import StartGuard, tell_outcome
from vllm_circus.errors import NotRunning
from vllm_circus.lifecycle.states import State
from vllm_circus.paths import Instance
from vllm_circus.screens.starting import Outcome
from vllm_circus.supervise.lock import hold_lock

NAMES = ("alpha", "beta")


@pytest.fixture
def held(instance: Instance) -> Iterator[ExitStack]:
    """The set runs: closing this ends it."""
    with ExitStack() as stack:
        stack.enter_context(hold_lock(instance))
        yield stack


def models(*ready: str) -> ModelsMessage:
    states = (ModelState(name, State.READY if name in ready else State.LOADING) for name in NAMES)
    return ModelsMessage(time.time(), 1, 1, tuple(states))


def counts(workers: int) -> CountsMessage:
    alive = tuple(WorkerState(pid, 1, 0, 0.0) for pid in range(workers))
    return CountsMessage(time.time(), 1, {}, {}, {}, {}, alive, ())


def test_while_there_is_hope_nothing_is_said(instance: Instance, held: ExitStack) -> None:
    guard = StartGuard(instance, NAMES, 600.0)
    for word in (None, models(), counts(0), models("alpha"), counts(1)):
        guard(word)


def test_who_is_late_is_named_when_the_time_is_over(instance: Instance, held: ExitStack) -> None:
    guard = StartGuard(instance, NAMES, 0.0)
    with pytest.raises(NotRunning, match="not there after 0 s: beta, the proxy"):
        guard(models("alpha"))
    with pytest.raises(NotRunning, match=r"not there after 0 s: beta$"):
        guard(counts(1))


def test_who_had_failed_is_named_as_well(instance: Instance, held: ExitStack) -> None:
    guard = StartGuard(instance, ("alpha", "beta", "gamma"), 0.0)
    beta = ModelState("beta", State.BACKOFF, "out of memory", tries=2)
    gamma = ModelState("gamma", State.STOPPED, "the first request starts it", on_call=True)
    told = ModelsMessage(time.time(), 1, 1, (ModelState("alpha", State.LOADING), beta, gamma))
    with pytest.raises(NotRunning, match=r"not there after 0 s: alpha, the proxy\n +beta is backoff: out of memory$"):
        guard(told)


def test_a_set_that_ends_ends_the_wait(instance: Instance, held: ExitStack) -> None:
    guard = StartGuard(instance, NAMES, None)
    guard(models())
    held.close()
    with pytest.raises(NotRunning, match="ended meanwhile"):
        guard(None)


def test_a_silent_health_plugin_ends_the_wait(
    instance: Instance, held: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard = StartGuard(instance, NAMES, None)
    monkeypatch.setattr("vllm_circus.cli.waiting.SILENCE", -1.0)
    with pytest.raises(NotRunning, match="the health plugin is silent"):
        guard(None)


def test_what_the_screen_showed_last_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(starting, "say", said.append)
    failed = {"beta": ModelState("beta", State.FAILED)}
    tell_outcome(("alpha", "beta", "gamma", "delta"), Outcome("failed", "", failed, ("gamma",), ("delta",)))
    assert said == ["alpha: ready", "delta: left out, and stopped"]


def test_a_model_at_rest_is_not_said_to_be_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(starting, "say", said.append)
    beta = ModelState("beta", State.STOPPED, "the first request starts it", on_call=True)
    tell_outcome(NAMES, Outcome("ready", at_rest={"beta": beta}))
    assert said == ["alpha: ready", "beta: stopped (the first request starts it)"]
