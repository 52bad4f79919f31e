"""Two models that have the card at once, each its share."""

from __future__ import annotations

import pytest

from tests.real_gpu.card import CONTEXT, GIB, Card
from tests.real_gpu.fleet import fleet

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]
SHARES = {"a": 0.4, "b": 0.35}


def test_each_of_two_models_takes_its_share_and_both_answer(card: Card, pids_told: bool) -> None:
    with fleet(card, [{"name": name, "gpu_memory": share} for name, share in SHARES.items()]) as running:
        sample = card.watch.now()
        for name, share in SHARES.items():
            assert running.ask(name) == 200
            if pids_told:
                held, wanted = sample.held[running.core(name)] or 0, share * card.total
                print(f"\n{name}: {held / GIB:.2f} GiB by NVML, {wanted / GIB:.2f} GiB by its share", end="")
                assert -GIB < held - wanted < CONTEXT
        both = sum(SHARES.values()) * card.total
        print(f"\nboth: {(sample.used - card.idle) / GIB:.2f} GiB in use, {both / GIB:.2f} GiB by their shares")
        assert -2 * GIB < sample.used - card.idle - both < 2 * CONTEXT
        assert running.entries("refused") == []
    card.watch.wait(lambda later: later.used < card.idle + GIB // 4)
