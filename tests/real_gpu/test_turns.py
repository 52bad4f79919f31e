"""Models that have more than half of the card each, and take turns on it."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.real_gpu.card import CONTEXT, GIB, Card
from tests.real_gpu.fleet import Fleet, fleet

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]
SHARE = 0.7
RESTS = {"sleep": ("a", "b"), "stop": ("c", "d")}


@pytest.fixture(scope="module")
def turns(card: Card) -> Iterator[Fleet]:
    models = [
        {"name": name, "gpu_memory": SHARE, "exclusive": "card", "turn": 0, "sleep": rest == "sleep"}
        for rest, names in RESTS.items()
        for name in names
    ]
    with fleet(card, models) as running:
        yield running


@pytest.mark.parametrize("rest", RESTS)
def test_every_request_is_answered_and_the_card_never_has_two(turns: Fleet, pids_told: bool, rest: str) -> None:
    card, rounds = turns.card, 1 if turns.card.state else 3
    first = card.watch.now()
    seconds = []
    for name in RESTS[rest][::-1] * rounds:  # the first of the file is awake with the set
        begin = time.monotonic()
        assert turns.ask(name) == 200
        seconds.append(time.monotonic() - begin)
    print(f"\nturns with {rest}: " + ", ".join(f"{one:.2f}" for one in seconds) + " s from a request to its answer")
    samples = [sample for sample in card.watch.samples if sample.at >= first.at]
    most = max(sample.used for sample in samples) - card.idle
    print(f"of {len(samples)} looks at the card the most in use was {most / GIB:.1f} GiB")
    assert most < SHARE * card.total + 4 * CONTEXT
    if pids_told:
        assert all(sum((held or 0) > 2 * CONTEXT for held in sample.held.values()) <= 1 for sample in samples)
    assert turns.entries("refused") == []
