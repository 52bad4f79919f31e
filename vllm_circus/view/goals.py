"""Whether a wish for one model has come true: rules over its state when it was wished, and its state now. Pure."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto

from vllm_circus.bus.messages import ModelState, Verb
from vllm_circus.lifecycle.states import State


class Verdict(Enum):
    """What has become of a wish for one model."""

    WAITING = auto()
    DONE = auto()
    FAILED = auto()


def judge_start(before: ModelState | None, now: ModelState) -> Verdict:
    """A start: done when ready, given up when it has failed twice in a row.

    `before` is the state at the time of the wish (None where nobody told): as long as nothing has changed since, an
    old failure says nothing.
    """
    if now.state is State.READY:
        return Verdict.DONE
    if before is None and now.on_call and not now.awaited:  # the first request starts it
        return Verdict.DONE
    if before is not None and (before.state, before.since_at) == (now.state, now.since_at):
        return Verdict.WAITING
    hopeless = now.state is State.BACKOFF and now.tries >= 2
    stopped = now.state is State.STOPPED and before is not None
    return Verdict.FAILED if now.state is State.FAILED or hopeless or stopped else Verdict.WAITING


def judge_restart(before: ModelState | None, now: ModelState) -> Verdict:
    """A restart: a start, counted only from when the process of the time of the wish is gone."""
    same = before is not None and before.started_at is not None and before.started_at == now.started_at
    return Verdict.WAITING if same else judge_start(before, now)


def judge_stop(before: ModelState | None, now: ModelState) -> Verdict:
    """A stop: done when stopped, given up when somebody has started another process meanwhile."""
    if now.state is State.STOPPED:
        return Verdict.DONE
    another = before is not None and now.started_at not in {None, before.started_at}
    return Verdict.FAILED if another and now.state in {State.LOADING, State.READY} else Verdict.WAITING


def judge_sleep(before: ModelState | None, now: ModelState) -> Verdict:
    """Going to sleep: done when asleep, given up when it serves again or is gone."""
    if now.state is State.SLEEPING and not now.awaited:
        return Verdict.DONE
    same = before is not None and (before.state, before.since_at) == (now.state, now.since_at)
    lost = now.state in {State.READY, State.STOPPED, State.FAILED, State.BACKOFF}
    return Verdict.FAILED if lost and not same else Verdict.WAITING


def judge_of(verb: Verb) -> Callable[[ModelState | None, ModelState], Verdict]:
    """The rule for a command."""
    rules = {"start": judge_start, "stop": judge_stop, "restart": judge_restart}
    return (rules | {"sleep": judge_sleep, "wake": judge_start})[verb]
