"""How far a start is: words and a share, from the phase that the log tells and from earlier loads. Pure."""

from __future__ import annotations

import re

from vllm_circus.bus.messages import ModelState
from vllm_circus.lifecycle.phases import stage_of
from vllm_circus.lifecycle.states import State
from vllm_circus.logline import clean
from vllm_circus.view.units import duration

#: A load that is expected to be over is not over before it says so.
_MOST = 0.99
_PERCENT = re.compile(r" (\d{1,3}) %$")


def share_of(told: ModelState, now: float) -> float | None:
    """How much of the start is done, 0 to 1; None where there is nothing to tell it by.

    By the time that earlier loads took, else by the phases that have passed.
    """
    if told.state is State.READY:
        return 1.0
    if told.state not in {State.LOADING, State.WAKING}:
        return 0.0 if told.state is State.QUEUED else None
    if told.expected:
        return min(_MOST, max(0.0, now - told.since_at) / told.expected)
    stage = stage_of(told.phase)
    if stage is None:
        return 0.0
    within = _PERCENT.search(told.phase)
    return min(_MOST, stage[0] + (stage[1] - stage[0]) * (min(100, int(within[1])) / 100 if within else 0.0))


def load_words(told: ModelState, now: float) -> str:
    """The phase, the time so far, and the time that it is expected to take; empty where nothing goes on."""
    if told.state is State.QUEUED:
        return f"waits for its turn, {duration(now - told.since_at)} so far"
    if told.state not in {State.LOADING, State.WAKING}:
        return ""
    return f"{clean(told.phase) or 'starting'}, {_times(now - told.since_at, told.expected)}"


def _times(so_far: float, expected: float | None) -> str:
    if not expected:
        return duration(so_far)
    usual = duration(max(1.0, expected))
    return f"{duration(so_far)} of about {usual}" if so_far <= expected else f"{duration(so_far)}, usually {usual}"
