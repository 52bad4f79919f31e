"""A model with two engines, under a real circusd."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.e2e.conftest import Circus, await_that, ports_in_a_row

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]


def test_replicas_are_operated_together_and_apart(
    circus: Circus, short_dir: Path, free_port: Callable[[], int]
) -> None:
    path = short_dir / "models.yaml"
    path.write_text(
        f"""\
proxy: {{host: 127.0.0.1, port: {free_port()}}}
defaults: {{engine: simulator, drain_timeout: 5, stop_timeout: 5}}
models:
  - {{name: chat, model: sim/chat, aliases: [gpt], replicas: 2, fallback: small, port: {ports_in_a_row(free_port, 2)}}}
  - {{name: small, model: sim/small, port: {free_port()}}}
"""
    )
    circus("up", str(path), "-d", "--wait", "--timeout", "100")
    url = circus.status()["proxy"]["url"].removesuffix("/v1")

    def page(name: str) -> Any:
        return requests.get(f"{url}{name}", timeout=30).json()

    before = pids(circus)
    assert list(before) == ["chat-1", "chat-2", "small"]
    assert [entry["id"] for entry in page("/v1/models")["data"]] == ["chat", "gpt", "small"]

    said = circus("restart", "chat").stderr
    assert said.index("chat-1: ready") < said.index("chat-2: ")
    after = pids(circus)
    assert {name for name in after if after[name] == before[name]} == {"small"}

    circus("stop", "chat-2")
    assert page("/health") == {
        "status": "degraded",
        "models": {"chat": "ready", "small": "ready"},
        "replicas": {"chat-1": "ready", "chat-2": "stopped"},
    }
    assert pids(circus)["chat-1"] == after["chat-1"]
    circus("stop", "chat")
    assert {entry["id"]: entry["state"] for entry in page("/v1/models")["data"]} == {
        "chat": "stopped",
        "gpt": "stopped",
        "small": "ready",
    }
    circus("start", "chat")
    assert page("/health")["status"] == "ok"

    def parts() -> set[str]:
        return {line.split()[0] for line in circus("logs", "chat").stdout.splitlines()}

    await_that(lambda: parts() >= {"chat-1", "chat-2"})  # circusd carries what they say to their logs
    assert parts() == {"chat-1", "chat-2"}


def pids(circus: Circus) -> dict[str, int]:
    """The engines' processes."""
    return {model["name"]: model["pid"] for model in circus.status()["models"]}
