from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.drains import STALE
from plugins.exchange import Engine
from plugins.pulse import Pulse, PulseWatch, feel, read_pulse
from tests.plans import model_plan
from tests.simulator.running import running as simulator
from tests.simulator.running import until
from vllm_circus.config.models import Probe
from vllm_circus.lifecycle.events import Counted, Drained, Event
from vllm_circus.lifecycle.life import Life
from vllm_circus.lifecycle.states import State
from vllm_circus.plan.types import Endpoint

PAGE = rb"""
# HELP vllm:num_requests_running Number of requests in model execution batches.
vllm:num_requests_running{engine="0",model_name="a"} 2.0
vllm:num_requests_running{engine="1",model_name="a} 9.0 \" "} 1.0
vllm:num_requests_running_total{engine="0"} 77.0
vllm:num_requests_waiting{engine="0",model_name="a"} 4.0 1760000000
vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 55.0
vllm:iteration_tokens_total_bucket{engine="0",le="1.0"} 33.0
vllm:iteration_tokens_total_count{engine="0",model_name="a"} 1.5e+03
vllm:iteration_tokens_total_count{engine="1",model_name="a"} 500.0
"""


def test_a_page_is_summed_over_its_labels() -> None:
    assert read_pulse(PAGE) == Pulse(running=3.0, waiting=4.0, iterations=2000.0)


@pytest.mark.parametrize("change", [(b"_waiting{", b"_w{"), (b" 4.0 ", b" NaN "), (b" 4.0 ", b" four ")])
def test_a_page_that_lacks_one_of_them_tells_nothing(change: tuple[bytes, bytes]) -> None:
    assert read_pulse(PAGE.replace(*change)) is None


@given(st.binary() | st.lists(st.sampled_from(PAGE.splitlines())).map(b"\n".join))
def test_no_page_harms(page: bytes) -> None:
    read_pulse(page)


def test_a_real_page_tells_of_requests_and_steps(short_dir: Path) -> None:
    with simulator(short_dir, "--max-num-seqs", "1", "--sim-token-seconds", "0.01", "--sim-tokens", "9999") as one:
        model = model_plan(endpoint=Endpoint("127.0.0.1", one.port))

        def pulse() -> Pulse | None:
            return asyncio.run(feel(Engine(model, None), 5))

        assert pulse() == Pulse(0, 0, 0)
        connections = [one.send("POST", "/v1/completions", {"prompt": "hi"}) for _ in range(3)]
        first = until(lambda: (found := pulse()) and found.running == 1 and found.waiting == 2 and found)
        assert first
        until(lambda: (found := pulse()) and found.iterations > first.iterations)
        for connection in connections:
            connection.close()
    assert pulse() is None


READY = Life(state=State.READY, pid=7, since=900.0)
DRAINING = Life(state=State.DRAINING, pid=7, since=900.0)
PLAN = model_plan(probe=Probe(interval=2.0, hang_after=120.0))


def asked_at(
    life: Life, *, busy: bool = False, silent: bool = False, probe: Probe = PLAN.probe, engine: str = "vllm"
) -> list[float]:
    """When it is asked in twenty seconds."""
    watch, plan = PulseWatch(), replace(PLAN, probe=probe, engine=engine)
    found = []
    for quarter in range(80):
        now = 1000.0 + quarter / 4
        if watch.is_due(plan, life, busy=busy, silent=silent, now=now):
            watch.ended("a")
            found.append(now - 1000)
    return found


def test_only_engines_with_requests_are_asked_every_few_probes() -> None:
    assert asked_at(READY, busy=True) == [0, 6, 12, 18]
    assert asked_at(READY) == []
    assert asked_at(READY, silent=True) == [0, 6, 12, 18]
    assert asked_at(replace(READY, frozen=990.0)) == [0, 6, 12, 18]
    assert asked_at(READY, busy=True, probe=Probe(hang_after=4.0))[:3] == [0, 1, 2]
    assert asked_at(READY, busy=True, probe=Probe(hang_after=None)) == []


@pytest.mark.parametrize("life", [Life(), replace(READY, state=State.LOADING), replace(READY, pid=None)])
def test_what_does_not_serve_is_not_asked(life: Life) -> None:
    assert asked_at(life, busy=True, silent=True) == []


def test_other_engines_are_not_asked() -> None:
    assert asked_at(READY, busy=True, engine="command") == []


def test_nobody_is_asked_again_before_the_answer() -> None:
    watch = PulseWatch()
    assert watch.is_due(PLAN, READY, busy=True, silent=False, now=1000.0)
    assert not watch.is_due(PLAN, READY, busy=True, silent=False, now=1050.0)
    watch.ended("a")
    assert watch.is_due(PLAN, READY, busy=True, silent=False, now=1050.0)


def test_where_nobody_tells_a_draining_engine_is_asked_each_second_when_every_worker_has_heard_of_it() -> None:
    quick = Probe(hang_after=None)
    assert asked_at(DRAINING, silent=True, probe=quick) == list(range(20))
    assert asked_at(DRAINING, silent=False, probe=quick) == []
    assert asked_at(replace(DRAINING, since=1000.0), silent=True, probe=quick)[0] == STALE + 0.25
    assert asked_at(replace(DRAINING, dozing=True), silent=True, probe=quick) == []


FREE, RUNS, WAITS = Pulse(0, 0, 5), Pulse(1, 0, 5), Pulse(0, 1, 5)


def taken(*pulses: Pulse | None, life: Life = DRAINING, silent: bool = True) -> list[Event]:
    watch = PulseWatch()
    asked = 1000.0
    found: list[Event] = []
    for pulse in pulses:
        asked += 1
        found += watch.take("a", life, pulse, silent=silent, asked=asked)
    return found


def test_what_the_engine_counts_is_told() -> None:
    assert taken(RUNS, None, FREE, life=READY) == [Counted(1001.0, 1, 5), Counted(1003.0, 0, 5)]


@pytest.mark.parametrize(
    ("pulses", "drained"),
    [
        ((FREE, FREE), True),
        ((FREE,), False),
        ((FREE, RUNS, FREE), False),
        ((FREE, WAITS, FREE), False),
        ((FREE, None, FREE), False),
        ((RUNS, FREE, FREE), True),
    ],
)
def test_an_engine_without_requests_twice_in_a_row_is_drained(
    pulses: tuple[Pulse | None, ...], *, drained: bool
) -> None:
    assert (Drained() in taken(*pulses)) is drained
    assert Drained() not in taken(*pulses, silent=False)
    assert Drained() not in taken(*pulses, life=READY)


def test_what_was_seen_in_an_earlier_drain_does_not_count() -> None:
    watch = PulseWatch()
    assert Drained() not in list(watch.take("a", DRAINING, FREE, silent=True, asked=1001.0))
    again = replace(DRAINING, since=950.0)
    assert Drained() not in list(watch.take("a", again, FREE, silent=True, asked=1002.0))
    assert Drained() in list(watch.take("a", again, FREE, silent=True, asked=1003.0))
