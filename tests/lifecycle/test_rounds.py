from __future__ import annotations

import pytest

from vllm_circus.lifecycle.life import After, Life
from vllm_circus.lifecycle.rounds import Course, Round, course, order
from vllm_circus.lifecycle.states import State


def test_those_that_serve_nobody_come_first_and_each_once() -> None:
    lives = {"a": Life(state=State.READY), "b": Life(state=State.FAILED), "c": Life(state=State.READY)}
    assert order(("c", "a", "b", "a"), lives) == ("b", "c", "a")


@pytest.mark.parametrize(
    ("life", "expected"),
    [
        (Life(state=State.DRAINING, after=After.START), Course.COMING),
        (Life(state=State.STOPPING, after=After.START), Course.COMING),
        (Life(state=State.QUEUED), Course.COMING),
        (Life(state=State.LOADING), Course.COMING),
        (Life(state=State.READY), Course.READY),
        (Life(state=State.QUEUED, tries=1), Course.LOST),
        (Life(state=State.BACKOFF, tries=2), Course.LOST),
        (Life(state=State.FAILED), Course.LOST),
        (Life(state=State.STOPPED), Course.LOST),
        (Life(state=State.SLEEPING), Course.LOST),
        (Life(state=State.STOPPING, after=After.REST), Course.LOST),
        (Life(state=State.DRAINING, after=After.SLEEP), Course.LOST),
    ],
)
def test_the_next_one_comes_when_the_former_is_ready_and_none_when_it_is_lost(life: Life, expected: Course) -> None:
    assert course(life) is expected


def test_whoever_is_stopped_waits_no_longer() -> None:
    assert Round("a", ("b", "c")).without(["a", "b"]) == Round("a", ("c",))
