"""The few fields of a plan that views read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from vllm_circus.view.outline import Outline, read_outline

PLAN: dict[str, Any] = {
    "instance": {"name": "default"},
    "source": "/m.yaml",
    "proxy": {"host": "::", "port": 8000, "workers": 1, "tls_certificate": None},
    "models": [
        {
            "name": "a",
            "model": "x/a",
            "names": ["a", "b", "poet"],
            "adapters": [{"name": "poet", "path": "x/poet"}],
            "gpus": None,
            "endpoint": {"port": 8001},
            "enabled": True,
            "watcher": "model-a",
            "group": "a",
        }
    ],
}
REPLICAS = PLAN | {
    "models": [PLAN["models"][0] | {"name": f"a-{number}", "watcher": f"model-a-{number}"} for number in (1, 2)]
}


def test_a_plan_is_read() -> None:
    outline = read_outline(json.dumps(PLAN).encode())
    model = outline.model("a")
    assert model is not None
    assert model.names == ("a", "b", "poet")
    assert outline.model("b") is None


@pytest.mark.parametrize(
    ("name", "words"),
    [("a", ""), ("b", "`b` is an alias of `a`"), ("poet", "`poet` is an adapter of `a`"), ("c", "")],
)
def test_a_name_that_clients_use_is_explained(name: str, words: str) -> None:
    assert read_outline(json.dumps(PLAN).encode()).explain_name(name) == words


def test_a_command_may_mean_a_model_or_one_of_its_replicas() -> None:
    outline = read_outline(json.dumps(REPLICAS).encode())
    assert outline.targets == ("a", "a-1", "a-2")
    assert [engine.name for engine in outline.engines("a")] == ["a-1", "a-2"]
    assert [engine.name for engine in outline.engines("a-2")] == ["a-2"]
    assert outline.engines("b") == ()
    assert outline.explain_name("b") == "`b` is an alias of `a`"
    assert outline.explain_name("a") == ""
    assert read_outline(json.dumps(PLAN).encode()).targets == ("a",)


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[]", b"\xff", b'{"instance": 1}', json.dumps(PLAN | {"models": 3}).encode()]
)
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_outline(data)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("0.0.0.0", "http://127.0.0.1:8000/v1"),
        ("::", "http://127.0.0.1:8000/v1"),
        ("::1", "http://[::1]:8000/v1"),
        ("box.lan", "http://box.lan:8000/v1"),
    ],
)
def test_the_url_is_one_that_a_client_here_can_use(host: str, url: str) -> None:
    assert Outline("default", "/m.yaml", host, 8000, 1, ()).url == url


def test_the_url_tells_of_tls() -> None:
    secure = PLAN | {"proxy": PLAN["proxy"] | {"tls_certificate": "/a.crt"}}
    assert read_outline(json.dumps(secure).encode()).url == "https://127.0.0.1:8000/v1"


def test_the_unix_socket_is_read_where_there_is_one() -> None:
    beside = PLAN | {"proxy": PLAN["proxy"] | {"unix_socket": "/run/p.sock"}}
    assert read_outline(json.dumps(beside).encode()).unix_socket == "/run/p.sock"
    assert read_outline(json.dumps(PLAN).encode()).unix_socket == ""
