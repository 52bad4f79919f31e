"""What a running set holds of its proxy stays in every plan that it goes by."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.plans import model_plan
from tests.supervise.plans import make_instance, make_plan
from vllm_circus.plan.difference import compare
from vllm_circus.plan.held import as_held, held_back, on_held_port
from vllm_circus.plan.types import Endpoint, Plan

A, B = model_plan("a"), model_plan("b", endpoint=Endpoint("127.0.0.1", 8002))


def with_proxy(plan: Plan, **changes: Any) -> Plan:
    return replace(plan, proxy=replace(plan.proxy, **changes))


@pytest.mark.parametrize(
    "held",
    [
        {"host": "0.0.0.0"},
        {"port": 9, "workers": 4},
        {"tls_certificate": "/c", "tls_key": "/k", "unix_socket": "/s"},
        {"keys_env": "KEYS"},
    ],
)
def test_what_is_held_stays_and_all_else_is_the_new_plans(held: dict[str, Any], tmp_path: Path) -> None:
    running = make_plan(make_instance(tmp_path), A)
    new = with_proxy(replace(running, models=(A, B), source="/other.yaml"), **held, metrics=False)
    assert held_back(running.proxy, new.proxy) == tuple(held)
    assert as_held(running, new) == with_proxy(new, **{name: getattr(running.proxy, name) for name in held})


def test_as_long_as_the_file_differs_from_what_runs_it_is_named_and_no_longer(tmp_path: Path) -> None:
    running = make_plan(make_instance(tmp_path), A)
    new = with_proxy(running, port=9)
    assert as_held(running, new) == running
    assert compare(as_held(running, new), new).fixed == ("port",)
    assert not compare(as_held(running, new), new).applies
    assert compare(as_held(running, new), running).empty


def test_keys_that_move_to_a_variable_do_not_leave_the_proxy_open_until_then(tmp_path: Path) -> None:
    running = with_proxy(make_plan(make_instance(tmp_path), A), keys_file="/keys")
    new = with_proxy(running, keys_file=None, keys_env="KEYS")
    assert held_back(running.proxy, new.proxy) == ("keys_file", "keys_env")
    assert as_held(running, new).proxy.keys_file == "/keys"
    assert as_held(running, with_proxy(running, keys_file="/others")).proxy.keys_file == "/others"


def test_an_engine_on_the_running_proxys_port_is_found(tmp_path: Path) -> None:
    running = make_plan(make_instance(tmp_path), A, port=8002)
    assert on_held_port(running, replace(with_proxy(running, port=9), models=(A, B))) == "b"
    on_socket = replace(B, endpoint=replace(B.endpoint, uds="/engine-8002.sock"))
    assert on_held_port(running, replace(running, models=(A, on_socket))) == ""
