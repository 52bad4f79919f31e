"""Models of one `exclusive` name: who is next, and who makes room."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vllm_circus.lifecycle.life import Life
from vllm_circus.lifecycle.scheduler import Candidate, are_calm, next_starts, turns_over
from vllm_circus.lifecycle.states import State

NOW = 1000.0


def one(name: str, state: State, *, since: float = 0.0, priority: int = 0, gpu: int = 0, **life: object) -> Candidate:
    """One of `x` on a GPU, whose turn lasts 10 s."""
    lived = replace(Life(state=state, since=since), **life)  # type: ignore[arg-type] # a test gives fields of a life
    return Candidate(name, priority, frozenset({gpu}), lived, "x", 10.0)


def wanted(name: str, since: float, state: State = State.SLEEPING, **more: object) -> Candidate:
    return one(name, state, wished=True, waits=since, **more)  # type: ignore[arg-type] # fields of a life


def starts(*models: Candidate) -> str:
    return "".join(next_starts(models, 100))


def over(*models: Candidate, now: float = NOW) -> str:
    return "".join(turns_over(models, now))


AWAKE = [State.LOADING, State.WAKING, State.READY, State.UNHEALTHY, State.DRAINING, State.STOPPING]


@pytest.mark.parametrize("state", AWAKE)
def test_nobody_starts_or_wakes_up_beside_one_that_is_awake(state: State) -> None:
    other = one("a", state)
    assert starts(other, wanted("b", 5.0), wanted("c", 4.0, State.QUEUED)) == ""
    assert starts(replace(other, gpus=frozenset({7})), wanted("b", 5.0)) == "", "the name counts, whatever the GPUs"
    assert starts(replace(other, exclusive="y", gpus=frozenset({7})), wanted("b", 5.0)) == "b"


def test_nobody_starts_beside_what_one_of_them_left() -> None:
    assert starts(one("a", State.STOPPED, remains=(7,)), wanted("b", 5.0)) == ""


def test_the_one_that_has_waited_longest_is_next_whatever_its_priority() -> None:
    assert starts(wanted("a", 7.0, priority=5), wanted("b", 5.0), wanted("c", 6.0, State.QUEUED)) == "b"


def test_those_that_nobody_waits_for_come_last_and_by_priority() -> None:
    assert starts(one("a", State.QUEUED, waits=1.0), wanted("b", 5.0)) == "b"
    assert starts(one("a", State.QUEUED), one("b", State.QUEUED, priority=3), one("c", State.QUEUED)) == "b"


def test_one_that_sleeps_and_is_not_wanted_is_not_woken() -> None:
    assert starts(one("a", State.SLEEPING)) == ""


def test_it_makes_room_when_its_turn_is_over_and_somebody_waits_for_another() -> None:
    assert over(one("a", State.READY, since=NOW - 10), wanted("b", 990.0)) == "a"
    assert over(one("a", State.READY, since=NOW - 9), wanted("b", 900.0)) == ""
    assert over(one("a", State.READY, since=NOW - 900), one("b", State.SLEEPING)) == ""
    assert over(one("a", State.UNHEALTHY, since=NOW - 10), wanted("b", 990.0)) == "a"


def test_one_that_is_quiet_makes_room_before_its_turn_is_over() -> None:
    assert over(one("a", State.READY, since=NOW - 4, quiet=NOW - 3), wanted("b", 990.0)) == "a"
    assert over(one("a", State.READY, since=NOW - 4, quiet=NOW - 2), wanted("b", 990.0)) == ""
    assert over(one("a", State.READY, since=NOW - 1, quiet=NOW - 900), wanted("b", 990.0)) == ""


def test_the_shortest_turn_lets_requests_come_that_waited() -> None:
    hasty = replace(one("a", State.READY, since=NOW - 1), turn=0.0)
    assert over(hasty, wanted("b", 990.0)) == ""
    assert over(hasty, wanted("b", 990.0), now=NOW + 1) == "a"


@pytest.mark.parametrize("other", [one("b", State.READY), wanted("b", 5.0), one("b", State.STOPPED, remains=(7,))])
def test_who_is_in_the_line_with_nobody_waiting_leaves_it_for_another(other: Candidate) -> None:
    assert over(one("a", State.QUEUED), other) == "a"
    assert over(wanted("a", 5.0, State.QUEUED), one("c", State.SLEEPING)) == ""


def test_room_is_not_made_while_another_model_loads_on_the_gpu() -> None:
    loading = Candidate("z", 0, frozenset({0, 1}), Life(state=State.LOADING))
    ready = one("a", State.READY)
    assert over(loading, ready, wanted("b", 990.0)) == ""
    assert over(replace(loading, gpus=frozenset({1})), ready, wanted("b", 990.0)) == "a"
    assert are_calm([loading, ready]) == {"z"}
    assert are_calm([loading, replace(ready, gpus=frozenset({5}))]) == {"a", "z"}


def test_waking_up_waits_for_the_gpu_but_not_for_processors() -> None:
    sleeper = replace(wanted("a", 5.0), exclusive=None)
    loading = Candidate("z", 0, frozenset({0}), Life(state=State.LOADING))
    assert starts(loading, sleeper) == ""
    elsewhere = replace(loading, gpus=frozenset({1}))
    assert "".join(next_starts([elsewhere, sleeper], 1)) == "a"
    assert starts(sleeper, Candidate("y", 0, frozenset({0}), Life(state=State.QUEUED))) == "a"
