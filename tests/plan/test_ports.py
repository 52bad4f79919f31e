"""Ports of engines: written ones stand, the others follow from 8001."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.plan.conftest import Planner
from vllm_circus.facts import Holder
from vllm_circus.plan.ports import INTERNAL_SIZE, internal_bases


def models(*lines: str) -> str:
    """Models a, b, c … each with further keys."""
    return "models:\n" + "".join(f"- {{name: {chr(97 + n)}, model: org/x, {line}}}\n" for n, line in enumerate(lines))


def ports(planner: Planner, text: str) -> list[int]:
    return [model.endpoint.port for model in planner.plan(text).models]


def test_ports_are_given_from_8001_in_the_files_order(planner: Planner) -> None:
    assert ports(planner, models("", "", "")) == [8001, 8002, 8003]


def test_written_ports_stand_and_the_others_go_around_them(planner: Planner) -> None:
    assert ports(planner, models("", "port: 8001", "")) == [8002, 8001, 8003]


def test_ports_in_use_and_the_proxys_are_left_out(planner: Planner) -> None:
    text = "proxy: {port: 8002}\n" + models("", "")
    assert ports(planner.given(busy_ports=frozenset({8001, 8003})), text) == [8004, 8005]


def test_models_of_a_running_set_keep_the_ports_that_they_have(planner: Planner) -> None:
    running = planner.given(kept_ports={"b": 8001, "c": 8007, "gone": 8002})
    assert ports(running, models("", "", "", "")) == [8002, 8001, 8007, 8003]


def test_a_port_is_not_kept_where_the_file_or_somebody_else_has_it(planner: Planner) -> None:
    running = planner.given(kept_ports={"a": 8001, "b": 8002, "c": 8003}, busy_ports=frozenset({8003}))
    assert ports(running, models("", "port: 8001", "")) == [8002, 8001, 8004]


def test_no_model_gets_the_port_that_the_running_proxy_has(planner: Planner) -> None:
    running = planner.given(held_port=8001)
    assert ports(running, "proxy: {port: 9000}\n" + models("", "")) == [8002, 8003]
    assert running.plan("proxy: {port: 8001}\n" + models("")).proxy.port == 8001


def test_a_disabled_model_keeps_its_port(planner: Planner) -> None:
    assert ports(planner, models("port: 8001, enabled: false", "")) == [8001, 8002]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (
            models("port: 9000", "port: 9000"),
            (
                "3: models[1].port: port 9000 is also that of models[0].port (line 2) "
                "(choose another port, or remove it to get a free one)"
            ),
        ),
        (
            models("port: 8000"),
            "2: models[0].port: port 8000 is the proxy's own (choose another port, or remove it to get a free one)",
        ),
        (
            models("port: 9001"),
            "2: models[0].port: port 9001 is in use by another process (remove it to get a free one)",
        ),
        (
            "proxy: {port: 9001}\n" + models(""),
            "1: proxy.port: port 9001 is in use by another process (stop it, or choose another port)",
        ),
    ],
    ids=["two models", "the proxy", "another process", "the proxy and another process"],
)
def test_conflicts_are_faults(planner: Planner, text: str, fault: str) -> None:
    assert planner.given(busy_ports=frozenset({9001})).faults(text) == [fault]


def test_who_has_a_port_is_named_where_that_is_known(planner: Planner) -> None:
    holders = {9001: Holder("process 7 (circusd), of the instance ev", "vllm-circus --instance ev down")}
    known = planner.given(busy_ports=frozenset({9001}), holders=holders)
    who = "port 9001 is in use by process 7 (circusd), of the instance ev"
    stop = "`vllm-circus --instance ev down` stops that, or choose another port"
    assert known.faults("proxy: {port: 9001}\n" + models("")) == [f"1: proxy.port: {who} ({stop})"]
    assert known.faults(models("port: 9001")) == [f"2: models[0].port: {who} (remove it to get a free one)"]


def test_a_disabled_model_may_name_a_port_in_use(planner: Planner) -> None:
    assert ports(planner.given(busy_ports=frozenset({9001})), models("port: 9001, enabled: false")) == [9001]


def test_no_port_left_is_a_fault(planner: Planner) -> None:
    everything = planner.given(busy_ports=frozenset(range(8001, 65536)))
    assert everything.faults(models("", "port: 700"))[0].startswith(
        "2: models[0]: no port is free".replace("]:", "].port:")
    )


@given(st.lists(st.integers(1, 65535), min_size=1, max_size=60, unique=True), st.integers(1, 65535))
def test_internal_port_ranges_are_apart_and_clear_of_all_ports(given_ports: list[int], proxy: int) -> None:
    bases = internal_bases(tuple(given_ports), proxy)
    ranges = [range(base, base + INTERNAL_SIZE) for base in bases]
    assert len(set(bases)) == len(given_ports)
    assert all(base % INTERNAL_SIZE == bases[0] % INTERNAL_SIZE for base in bases)
    assert not any(port in inside for port in (*given_ports, proxy) for inside in ranges)
    assert all(inside.start > 0 and inside.stop <= 32_768 for inside in ranges)


def test_a_thousand_models_each_have_a_range(planner: Planner) -> None:
    assert len(set(internal_bases(tuple(range(8001, 9001)), 8000))) == 1000


def test_the_internal_range_of_a_model_stays_when_another_comes(planner: Planner) -> None:
    assert internal_bases((8003,), 8000) == internal_bases((8001, 8003), 8000)[1:]
