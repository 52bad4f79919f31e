"""`status --json`."""

from __future__ import annotations

import json
from dataclasses import replace

from tests.view.pictures import GIB, MODELS, NOW, PICTURE
from vllm_circus.bus.messages import ModelState
from vllm_circus.lifecycle.states import State
from vllm_circus.view.document import status_document


def test_everything_about_a_model_is_there() -> None:
    document = json.loads(json.dumps(status_document(PICTURE)))
    qwen = document["models"][0]
    assert {key: qwen[key] for key in ("name", "state", "names", "gpus", "memory_used", "port", "uptime", "pid")} == {
        "name": "qwen",
        "state": "ready",
        "names": ["qwen", "chat"],
        "gpus": [0, 1],
        "memory_used": 121 * GIB,
        "port": 8001,
        "uptime": 3792.0,
        "pid": 201,
    }
    assert qwen["traffic"]["statuses"] == {"200": 1200, "499": 3, "502": 1}
    assert qwen["traffic"]["errors"] == 2
    assert qwen["traffic"]["duration"]["mean"] == 1.5
    assert document["models"][1]["phase"] == "loading weights"


def test_the_set_its_proxy_and_its_plugins_are_there() -> None:
    document = status_document(PICTURE)
    assert document["instance"] == "default"
    assert document["ready"] is False
    assert document["circusd"]["endpoint"].startswith("ipc://")
    assert [worker["pid"] for worker in document["proxy"]["workers"]] == [301, 302]
    assert document["proxy"]["unrouted"] == {"404": 2}
    assert document["proxy"]["unix_socket"] is None
    assert [(plugin["name"], plugin["alive"]) for plugin in document["plugins"]] == [("health", True), ("stats", True)]


def test_the_unix_socket_is_there() -> None:
    document = status_document(replace(PICTURE, outline=replace(PICTURE.outline, unix_socket="/run/p.sock")))
    assert document["proxy"]["unix_socket"] == "/run/p.sock"


def test_what_nobody_tells_is_null() -> None:
    document = status_document(replace(PICTURE, models=None, counts=None, now=NOW))
    assert document["gpus"] is None
    assert document["proxy"]["workers"] is None
    assert document["models"][0]["state"] is None
    assert document["models"][0]["traffic"] is None
    assert [plugin["age"] for plugin in document["plugins"]] == [None, None]


def test_the_time_since_which_a_model_never_ran_is_null() -> None:
    never = replace(MODELS, models=(ModelState("qwen", State.STOPPED),))
    assert status_document(replace(PICTURE, models=never))["models"][0]["since_at"] is None
