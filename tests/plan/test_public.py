"""The proxy's plan."""

from __future__ import annotations

import pytest

from tests.plan.conftest import Planner

MODEL = "\nmodels: [{name: a, model: org/x}]\n"


@pytest.mark.parametrize(
    ("cors", "origins"),
    [
        ("true", ("*",)),
        ("false", ()),
        ("[]", ()),
        ("[https://a.example, 'http://localhost:3000']", ("https://a.example", "http://localhost:3000")),
        ("[https://a.example, '*']", ("*",)),
    ],
)
def test_cors_becomes_a_list_of_origins(planner: Planner, cors: str, origins: tuple[str, ...]) -> None:
    assert planner.plan(f"proxy: {{cors: {cors}}}{MODEL}").proxy.cors == origins


@pytest.mark.parametrize("origin", ["a.example", "https://a.example/", "https://a.example/x", "https://a b", "null"])
def test_what_is_no_origin_is_refused(planner: Planner, origin: str) -> None:
    (fault,) = planner.faults(f"proxy: {{cors: ['{origin}']}}{MODEL}")
    assert f"1: proxy.cors[0]: '{origin}' is no origin" in fault


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.9.9.9"])
def test_a_loopback_host_needs_no_keys(planner: Planner, host: str) -> None:
    assert planner.plan(f"proxy: {{host: '{host}'}}{MODEL}").warnings == ()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "box.example.org"])
def test_a_public_host_without_keys_is_told(planner: Planner, host: str) -> None:
    (warning,) = planner.plan(f"proxy: {{host: '{host}', port: 80}}{MODEL}").warnings
    reached = "[::]:80" if host == "::" else f"{host}:80"
    assert warning.startswith(f"proxy: everybody who reaches {reached} may use the models")
    assert planner.plan(f"proxy: {{host: '{host}', keys: {{env: KEYS}}}}{MODEL}").warnings == ()


@pytest.mark.parametrize("host", ["300.1.1.1", "a b", "a/b", "http://a", "1.2.3", "-a", "[::1]", "$(circus.env.X)"])
def test_what_is_no_address_is_refused(planner: Planner, host: str) -> None:
    (fault,) = planner.faults(f"proxy: {{host: '{host}', keys: {{env: KEYS}}}}{MODEL}")
    assert f"1: proxy.host: '{host}' is no network address" in fault


def test_keys_that_are_nowhere_are_refused(planner: Planner) -> None:
    (fault,) = planner.faults(f"proxy: {{keys: {{}}}}{MODEL}")
    assert fault == "1: proxy.keys: names no keys (write `file` or `env`, or remove `keys`)"


def test_where_the_keys_are_is_passed_on(planner: Planner) -> None:
    assert planner.plan(f"proxy: {{keys: {{env: KEYS}}}}{MODEL}").proxy.keys_env == "KEYS"
