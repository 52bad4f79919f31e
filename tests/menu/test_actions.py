"""What is offered for a model in each of its states."""

from __future__ import annotations

import pytest

from vllm_circus.bus.messages import ModelState
from vllm_circus.lifecycle.states import State
from vllm_circus.menu.actions import Engine, deeds


def offered(*states: State | None, sleeps: bool = True, in_flight: int = 0) -> dict[str, str]:
    """Label and hint of what can be chosen."""
    engines = [Engine(None if state is None else ModelState("m", state), sleeps) for state in states]
    return {one.label: one.hint for one in deeds(engines, in_flight=in_flight) if not one.barred}


@pytest.mark.parametrize(
    ("state", "labels"),
    [
        (State.STOPPED, "Start Why Logs Remove"),
        (State.QUEUED, "Restart Stop Why Logs Remove"),
        (State.LOADING, "Restart Stop Why Logs Remove"),
        (State.READY, "Logs|Sleep|Sleep deeply|Restart|Stop|Remove"),
        (State.UNHEALTHY, "Why Restart Stop Logs Remove"),
        (State.DRAINING, "Start Why Logs Remove"),
        (State.STOPPING, "Start Why Logs Remove"),
        (State.BACKOFF, "Why Start Stop Logs Remove"),
        (State.FAILED, "Why Start Stop Logs Remove"),
        (State.SLEEPING, "Wake Restart Stop Why Logs Remove"),
        (State.WAKING, "Restart Stop Why Logs Remove"),
        (None, "Stop Why Logs Remove"),
    ],
)
def test_what_makes_sense_in_a_state_is_offered_the_likeliest_first(state: State | None, labels: str) -> None:
    assert list(offered(state)) == (labels.split("|") if "|" in labels else labels.split())


def test_every_state_has_an_offer() -> None:
    assert all(offered(state) for state in State)


def test_a_model_that_cannot_sleep_says_what_it_would_need() -> None:
    (sleep,) = [one for one in deeds([Engine(ModelState("m", State.READY))]) if one.value == "sleep"]
    assert "`sleep: true`" in sleep.barred
    assert "Sleep deeply" not in offered(State.READY, sleeps=False)


def test_requests_in_flight_are_told_where_they_have_to_end() -> None:
    told = offered(State.READY, in_flight=3)
    assert "3 requests in flight end first" in told["Stop"]
    assert "3 requests in flight end first" in told["Restart"]
    assert "in flight" not in offered(State.READY)["Stop"]


def test_replicas_offer_what_any_of_them_can() -> None:
    assert list(offered(State.READY, State.FAILED)) == [
        *("Why", "Start", "Sleep", "Sleep deeply", "Restart", "Stop", "Logs", "Remove"),
    ]
