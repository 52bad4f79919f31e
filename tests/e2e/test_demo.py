"""The demo: what a newcomer sees first."""

from __future__ import annotations

import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import PATIENCE, Circus

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]


@pytest.fixture
def demo(short_dir: Path) -> Iterator[Circus]:
    """The demo's instance in a home of its own."""
    circus = Circus(short_dir, "demo")
    yield circus
    circus.end()
    assert circus.processes() == []


def test_the_demo_asks_every_name_streams_shows_the_status_and_leaves_nothing(demo: Circus) -> None:
    shown = demo("demo")
    for name in ("alpha", "alpha-latest", "beta", "beta-latest"):
        assert f"\nTo {name}" in shown.stdout
    assert shown.stdout.count("simulated answer from alpha") == 3
    assert shown.stdout.count("simulated answer from beta") == 2
    assert re.search(r"^alpha +ready .* 3 ", shown.stdout, re.MULTILINE)
    assert re.search(r"^beta +ready .* 2 ", shown.stdout, re.MULTILINE)
    assert "vllm-circus demo --keep" in shown.stderr
    assert demo.processes() == []


def test_a_demo_that_is_interrupted_says_that_it_stops(demo: Circus) -> None:
    child = demo.begin("demo")
    assert child.stderr is not None
    while "circusd runs as process" not in (line := child.stderr.readline()):
        assert line, "it has ended"
    child.send_signal(signal.SIGINT)
    said = child.stderr.read()
    assert child.wait(PATIENCE) == 130
    assert "goes on" not in said
    assert said.endswith("stopping the demo\nstopped\n")
    assert demo.processes() == []


def test_a_second_demo_counts_from_nothing_until_all_is_counted(demo: Circus) -> None:
    for _ in range(2):
        (alpha,) = re.findall(r"^alpha +(.*)", demo("demo").stdout, re.MULTILINE)[-1:]
        state, _gpu, _port, _memory, in_flight, requests, *_ = alpha.split()
        assert (state, in_flight, requests) == ("ready", "0", "3")


def test_a_demo_that_is_kept_goes_on_and_says_what_to_try(demo: Circus) -> None:
    shown = demo("demo", "--keep")
    assert "vllm-circus --instance demo status -w" in shown.stderr
    assert demo.status()["ready"] is True
    again = demo("demo", code=1)
    assert again.stderr.startswith("error: a demo is running already (circusd is process ")
    assert "`vllm-circus --instance demo down` stops it" in again.stderr
    assert "port 8000" not in again.stderr
    assert demo.status()["ready"] is True


def test_a_taken_port_is_replaced_by_a_free_one(demo: Circus) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind(("127.0.0.1", 8000))
            taken.listen()
        except OSError:
            pass  # somebody else has taken it, which serves as well
        shown = demo("demo")
    assert "port 8000 is taken, so the demo's proxy listens on" in shown.stderr
