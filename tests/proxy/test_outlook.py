"""What the control pages tell of models with replicas."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest

from tests.proxy.conftest import a_model, a_plan
from vllm_circus.bus.messages import ModelsMessage, ModelState
from vllm_circus.lifecycle.states import State
from vllm_circus.plan.types import Adapter
from vllm_circus.proxy.control.outlook import Outlook
from vllm_circus.proxy.relay import Relay


@dataclass
class Heard:
    """What the pages read of a relay."""

    models: ModelsMessage | None
    connections: tuple[()] = ()
    draining: bool = False


def outlook(*states: State | None, started: tuple[float, ...] = (5.0, 6.0, 7.0)) -> Outlook:
    """A set of `chat` with two replicas, which falls back on `small`; states in that order, None for not heard of."""
    shared: dict[str, Any] = {
        "group": "chat",
        "names": ("chat", "gpt", "poet"),
        "aliases": ("gpt",),
        "adapters": (Adapter("poet", "/p"),),
        "fallback": "small",
    }
    models = (a_model("chat-1", 1, **shared), a_model("chat-2", 2, **shared), a_model("small", 3))
    told = tuple(
        ModelState(model.name, state, started_at=at)
        for model, state, at in zip(models, states, started, strict=False)
        if state
    )
    relay = Heard(ModelsMessage(1.0, 1, 1, told) if told else None)
    return Outlook(a_plan(Path("/run/x"), *models), cast("Relay", relay))


def test_every_name_is_listed_once_and_no_replicas() -> None:
    listed = outlook(State.READY, State.READY, State.READY).model_list()
    assert [entry["id"] for entry in listed] == ["chat", "gpt", "poet", "small"]
    assert [entry["root"] for entry in listed] == ["chat", "chat", "chat", "small"]
    assert [entry["parent"] for entry in listed] == [None, None, "chat", None]


@pytest.mark.parametrize(
    ("states", "shown", "created"),
    [
        ((State.FAILED, State.READY), "ready", 6),
        ((State.READY, State.FAILED), "ready", 5),
        ((State.STOPPED, State.LOADING), "loading", 6),
        ((State.BACKOFF, State.DRAINING), "backoff", 5),
        ((State.FAILED, None), "failed", 5),
        ((None, None), "unknown", 0),
    ],
)
def test_a_model_is_in_the_state_of_its_replica_that_is_nearest_to_serving(
    states: tuple[State | None, ...], shown: str, created: int
) -> None:
    for entry in outlook(*states).model_list()[:3]:
        assert (entry["state"], entry["created"]) == (shown, created)


def test_every_state_has_its_rank() -> None:
    for state in State:
        assert outlook(state).model_list()[0]["state"] == state.value


def test_health_tells_models_and_replicas_and_is_degraded_while_one_is_away() -> None:
    assert outlook(State.READY, State.LOADING, State.READY).health() == {
        "status": "degraded",
        "models": {"chat": "ready", "small": "ready"},
        "replicas": {"chat-1": "ready", "chat-2": "loading"},
    }
    assert outlook(State.READY, State.READY, State.READY).health()["status"] == "ok"
    assert outlook().health()["status"] == "ok"


def test_the_registry_and_the_status_tell_of_every_replica_whose_it_is() -> None:
    seen = outlook(State.READY, State.LOADING, State.READY)
    for models in (seen.registry()["models"], seen.status()["models"]):
        assert [(model["name"], model["group"], model["fallback"], model["state"]) for model in models] == [
            ("chat-1", "chat", "small", "ready"),
            ("chat-2", "chat", "small", "loading"),
            ("small", "small", None, "ready"),
        ]


def test_no_time_is_told_where_nobody_knows_it() -> None:
    assert [model["since_at"] for model in outlook(State.STOPPED).status()["models"]] == [None, None, None]
