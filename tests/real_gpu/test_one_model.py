"""One model that has more than half of the card: seen, asleep, killed, and kept out by somebody else."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import await_that
from tests.real_gpu.card import CONTEXT, GIB, Card, Sample
from tests.real_gpu.fleet import Fleet, fleet
from tests.real_gpu.look import PAUSE

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]
SHARE = 0.6


@pytest.fixture(scope="module")
def solo(card: Card) -> Iterator[Fleet]:
    with fleet(card, [{"name": "solo", "gpu_memory": SHARE, "sleep": True}]) as running:
        yield running


@pytest.fixture
def ready(solo: Fleet) -> Fleet:
    """The set with its model ready."""
    solo.circus("start", "solo")
    return solo


def taken(sample: Sample, card: Card, share: float) -> bool:
    """Whether about so much of the card is in use, beside what always is."""
    return -GIB // 2 <= sample.used - card.idle - share * card.total < 2 * CONTEXT


def test_status_shows_the_memory_that_a_model_has(ready: Fleet) -> None:
    card = ready.card
    await_that(lambda: (ready.circus.model("solo")["memory_used"] or 0) >= SHARE * (card.total - GIB))
    shown, sample = ready.circus.model("solo")["memory_used"], card.watch.now()
    print(f"\nwith a share of {SHARE} the status shows {shown / GIB:.2f} GiB, NVML {sample.used / GIB:.2f} GiB")
    assert abs(shown - sample.used) < GIB // 4
    assert taken(sample, card, SHARE)


def test_asleep_it_gives_the_memory_back_and_takes_it_again(ready: Fleet) -> None:
    card = ready.card
    for verb, share in {"sleep": 0.0, "wake": SHARE}.items():
        begin = time.monotonic()
        ready.circus(verb, "solo")
        took = time.monotonic() - begin
        changed = card.watch.wait(lambda sample, share=share: taken(sample, card, share), since=begin)  # type: ignore[misc]  # mypy cannot infer its type
        used, seconds = changed.used / GIB, changed.at - begin
        print(f"\n{verb}: {used:.2f} GiB in use after {seconds:.2f} s, the command returned after {took:.2f} s")
    assert ready.ask("solo") == 200


@pytest.mark.parametrize("victim", ["engine", "server"])
def test_after_kill_9_it_is_not_started_before_the_memory_is_back(ready: Fleet, victim: str) -> None:
    card, server = ready.card, ready.circus.model("solo")["pid"]
    pid = ready.core("solo") if victim == "engine" else server
    with card.lingering(1500):
        begin = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        enough = card.watch.wait(lambda sample: sample.used < (1 - SHARE) * card.total, since=begin)
        back = card.watch.wait(lambda sample: taken(sample, card, 0.0), since=begin)
        await_that(lambda: ready.entries("took", begin))
    await_that(lambda: ready.circus.model("solo")["state"] == "ready")
    after = time.monotonic() - begin
    start, took = ready.entries("start", begin)[0].at, ready.entries("took", begin)[0].at
    print(
        f"\nkill -9 of the {victim}: memory back after {back.at - begin:.2f} s, started after {start - begin:.2f} s, "
        f"has its memory after {took - begin:.2f} s, seen to be ready after {after:.2f} s"
    )
    assert start > enough.at - 2 * PAUSE
    assert ready.entries("refused") == []
    assert ready.ask("solo") == 200


def test_memory_that_somebody_else_has_keeps_it_from_starting_until_that_ends(ready: Fleet, pids_told: bool) -> None:
    card, circus = ready.card, ready.circus
    circus("stop", "solo")
    card.watch.wait(lambda sample: taken(sample, card, 0.0))
    begin = time.monotonic()
    with card.held("all-but", str(4 * GIB)) as (pid, size):
        circus("start", "solo", "--no-wait")
        await_that(lambda: ready.why("solo")["crash"] and ready.why("solo")["crash"]["why"]["signature"] == "preflight")
        cause = ready.why("solo")["crash"]["why"]["cause"]
    print(f"\nanother process has {size / GIB:.1f} GiB, and after {time.monotonic() - begin:.1f} s `why` says: {cause}")
    assert cause.startswith("not started: GPU 0 has ")
    assert f"and it takes {SHARE * card.total / GIB:.1f}" in cause
    if pids_told:
        assert f": process {pid} (python" in cause
    ended = time.monotonic()
    await_that(lambda: circus.model("solo")["state"] == "ready")
    print(f"it is ready by itself {time.monotonic() - ended:.1f} s after that process ended")
    assert ready.entries("refused") == []
