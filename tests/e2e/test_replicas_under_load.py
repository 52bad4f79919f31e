"""A model with two engines while clients stream from it: what they see of a restart, and of a crash."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import Circus, await_that, ports_in_a_row
from tests.e2e.traffic import Traffic

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

RATE = 50.0


@pytest.fixture
def traffic(circus: Circus, short_dir: Path, free_port: Callable[[], int]) -> Iterator[Traffic]:
    """Streams from `chat`, whose two engines are up."""
    path = short_dir / "models.yaml"
    path.write_text(
        f"""\
proxy: {{host: 127.0.0.1, port: {free_port()}}}
defaults: {{engine: simulator, drain_timeout: 20, stop_timeout: 5}}
models:
  - {{name: chat, model: sim/chat, replicas: 2, port: {ports_in_a_row(free_port, 2)}}}
"""
    )
    circus("up", str(path), "-d", "--wait", "--timeout", "100")
    with Traffic(circus.status()["proxy"]["url"], "chat", RATE) as traffic:
        await_that(lambda: len(traffic.done) >= RATE)
        yield traffic


def test_a_restart_costs_nobody_an_answer(circus: Circus, traffic: Traffic) -> None:
    before = {model["name"]: model["pid"] for model in circus.status()["models"]}
    circus("restart", "chat")
    after = {model["name"]: model["pid"] for model in circus.status()["models"]}
    assert not set(before.values()) & set(after.values()), "both are other processes"
    number = len(traffic.done)
    await_that(lambda: len(traffic.done) >= number + RATE)
    traffic.stop()
    print(f"restart of two replicas at {RATE:g} requests/s: {dict(traffic.summary())}")
    assert dict(traffic.summary()) == {"whole": len(traffic.done)}


def test_a_killed_engine_takes_only_what_it_was_at(circus: Circus, traffic: Traffic) -> None:
    pid = circus.model("chat-1")["pid"]
    os.kill(pid, signal.SIGKILL)
    await_that(lambda: not Path(f"/proc/{pid}").exists())  # until then what it listens on takes connections
    killed = time.monotonic()
    await_that(lambda: circus.model("chat-1")["pid"] not in {pid, None} and circus.model("chat-1")["state"] == "ready")
    number = len(traffic.done)
    await_that(lambda: len(traffic.done) >= number + RATE)
    traffic.stop()
    print(f"kill -9 of one of two replicas at {RATE:g} requests/s: {dict(traffic.summary())}")
    lost = [one for one in traffic.done if not one.whole]
    assert all(one.status in {200, 502} for one in lost), "cut in the answer, or told that it was lost"
    assert not any(one.looks_whole or b"[DONE]" in one.answer for one in lost if one.status == 200)
    assert all(one.began < killed + 0.5 for one in lost), "everything after it is answered by the other one"
    assert 1 <= len(lost) <= RATE
