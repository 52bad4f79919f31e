from __future__ import annotations

import pytest

from vllm_circus.lifecycle.life import Life
from vllm_circus.lifecycle.scheduler import Candidate, claimed_gpus, most_starts, next_starts
from vllm_circus.lifecycle.states import State


def candidate(
    name: str,
    gpus: set[int] | None,
    state: State = State.QUEUED,
    priority: int = 0,
    remains: tuple[int, ...] = (),
) -> Candidate:
    return Candidate(name, priority, None if gpus is None else frozenset(gpus), Life(state=state, remains=remains))


def starts(*models: Candidate, most: int = 100) -> str:
    return "".join(next_starts(models, most))


def test_models_on_different_gpus_start_side_by_side_in_the_files_order() -> None:
    assert starts(candidate("a", {0}), candidate("b", {1}), candidate("c", {2, 3})) == "abc"


def test_higher_priority_comes_first() -> None:
    assert starts(candidate("a", {0}), candidate("b", {0}, priority=5)) == "b"


@pytest.mark.parametrize("state", [State.LOADING, State.DRAINING, State.STOPPING])
def test_a_gpu_on_which_something_comes_or_goes_sees_no_start(state: State) -> None:
    assert starts(candidate("a", {0}, state), candidate("b", {0, 1}), candidate("c", {2})) == "c"


@pytest.mark.parametrize("state", [State.READY, State.UNHEALTHY, State.FAILED, State.STOPPED, State.BACKOFF])
def test_the_next_one_starts_when_the_former_is_ready_or_has_failed(state: State) -> None:
    assert starts(candidate("a", {0}, state), candidate("b", {0})) == "b"


def test_leftovers_hold_the_gpu() -> None:
    assert starts(candidate("a", {0}, State.FAILED, remains=(7,)), candidate("b", {0})) == ""
    assert starts(candidate("a", {0}, remains=(7,))) == ""


def test_nobody_overtakes_on_a_gpu_that_somebody_waits_for() -> None:
    loading = candidate("a", {0}, State.LOADING)
    assert starts(loading, candidate("b", {0, 1}, priority=1), candidate("c", {1})) == ""


def test_whoever_shares_no_gpu_may_overtake() -> None:
    assert starts(candidate("a", {0}, State.LOADING), candidate("b", {0}), candidate("c", {1})) == "c"


def test_no_more_load_at_once_than_the_processors_bear() -> None:
    models = [candidate(name, set()) for name in "abcd"]
    assert starts(*models, most=2) == "ab"
    assert starts(candidate("x", set(), State.LOADING), *models, most=2) == "a"


def test_unpinned_models_share_every_gpu_with_everybody_who_uses_one() -> None:
    assert starts(candidate("a", None), candidate("b", {3}), candidate("c", None)) == "a"
    assert starts(candidate("a", {3}), candidate("b", None)) == "a"
    assert starts(candidate("a", None), candidate("b", set())) == "ab"


def test_unpinned_models_share_nothing_where_there_are_no_gpus() -> None:
    assert claimed_gpus(None, machine_has_gpus=False) == frozenset()
    assert claimed_gpus(None, machine_has_gpus=True) is None
    assert claimed_gpus((1, 2), machine_has_gpus=True) == frozenset({1, 2})
    assert claimed_gpus((), machine_has_gpus=True) == frozenset()


@pytest.mark.parametrize(("cores", "most"), [(1, 2), (2, 2), (8, 2), (16, 4), (128, 32)])
def test_starts_at_once_by_cores(cores: int, most: int) -> None:
    assert most_starts(cores) == most
