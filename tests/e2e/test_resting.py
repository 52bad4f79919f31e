"""Models that rest: asleep, on call, in turns; a request brings them up and is answered."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.e2e.conftest import Circus, await_that, with_ports
from tests.e2e.traffic import Traffic

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]


def start(circus: Circus, short_dir: Path, free_port: Callable[[], int], models: str) -> str:
    path = short_dir / "models.yaml"
    path.write_text(
        f"proxy: {{host: 127.0.0.1, port: {free_port()}}}\n"
        f"defaults: {{engine: simulator}}\nmodels:\n{with_ports(models, defaultdict(free_port))}"
    )
    circus("up", str(path), "-d", "--wait", "--timeout", "100")
    url: str = circus.status()["proxy"]["url"]
    return url


def ask(url: str, model: str) -> requests.Response:
    body: dict[str, Any] = {"model": model, "max_tokens": 4, "messages": [{"role": "user", "content": "x"}]}
    return requests.post(f"{url}/chat/completions", json=body, timeout=60)


def test_an_idle_model_sleeps_and_a_request_wakes_it(
    circus: Circus, short_dir: Path, free_port: Callable[[], int]
) -> None:
    url = start(circus, short_dir, free_port, "  - {name: a, model: sim/a, sleep: true, idle: {after: 1.5}}\n")
    assert ask(url, "a").status_code == 200
    pid = circus.model("a")["pid"]
    await_that(lambda: circus.model("a")["state"] == "sleeping")
    assert ask(url, "a").status_code == 200
    assert circus.model("a")["pid"] == pid, "the same process"


def test_sleep_and_wake_are_commands(circus: Circus, short_dir: Path, free_port: Callable[[], int]) -> None:
    start(circus, short_dir, free_port, "  - {name: a, model: sim/a, sleep: true}\n  - {name: b, model: sim/b}\n")
    circus("sleep", "a", "--level", "2")
    assert circus.model("a")["state"] == "sleeping"
    circus("wake", "a")
    assert circus.model("a")["state"] == "ready"
    assert "sleep: true" in circus("sleep", "b", code=1).stderr


def test_a_model_on_demand_starts_with_the_first_request_and_stops_when_idle(
    circus: Circus, short_dir: Path, free_port: Callable[[], int]
) -> None:
    url = start(
        circus,
        short_dir,
        free_port,
        "  - {name: a, model: sim/a, on_demand: true, idle: {after: 1.5, then: stop}}\n  - {name: b, model: sim/b}\n",
    )
    assert circus.model("a")["pid"] is None
    assert ask(url, "a").status_code == 200
    await_that(lambda: circus.model("a")["state"] == "stopped")
    assert ask(url, "a").status_code == 200
    circus("stop", "a")
    assert ask(url, "a").status_code == 503, "an operator's stop is an operator's"


def test_two_models_take_turns_without_a_lost_request(
    circus: Circus, short_dir: Path, free_port: Callable[[], int]
) -> None:
    options = "sleep: true, exclusive: gpu, turn: 0.5"
    url = start(
        circus,
        short_dir,
        free_port,
        f"  - {{name: a, model: sim/a, {options}}}\n  - {{name: b, model: sim/b, {options}}}\n",
    )
    for _ in range(3):
        for name in ("a", "b"):
            assert ask(url, name).status_code == 200
            states = {model["name"]: model["state"] for model in circus.status()["models"]}
            assert sum(state in {"ready", "loading", "waking"} for state in states.values()) <= 1, states


def test_a_restart_of_the_only_engine_lets_requests_wait(
    circus: Circus, short_dir: Path, free_port: Callable[[], int]
) -> None:
    url = start(circus, short_dir, free_port, "  - {name: a, model: sim/a}\n")
    with Traffic(url, "a", 20.0) as traffic:
        await_that(lambda: len(traffic.done) >= 20)
        circus("restart", "a")
        number = len(traffic.done)
        await_that(lambda: len(traffic.done) >= number + 20)
    print(f"restart of the only engine at 20 requests/s: {dict(traffic.summary())}")
    assert dict(traffic.summary()) == {"whole": len(traffic.done)}
