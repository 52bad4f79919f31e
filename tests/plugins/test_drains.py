from __future__ import annotations

import pytest

from plugins.drains import SETTLED, STALE, DrainWatch, is_drained
from vllm_circus.bus.messages import CountsMessage, ModelCounts, WorkerState


def counts(in_flight: int | None, *sequences: int, pid: int = 1) -> CountsMessage:
    models = {} if in_flight is None else {"a": ModelCounts(in_flight=in_flight), "b": ModelCounts(in_flight=9)}
    workers = tuple(WorkerState(pid, sequence, 1, 0.0) for pid, sequence in enumerate(sequences))
    return CountsMessage(1.0, pid, models, {}, {}, {}, workers, ())


@pytest.mark.parametrize(
    ("message", "drained"),
    [
        (counts(0, 5, 5), True),
        (counts(0, 6, 7), True),
        (counts(0, 5, 4), False),
        (counts(1, 5, 5), False),
        (counts(None, 5), True),
        (counts(0), True),
    ],
    ids=["all know", "all know more", "one does not know", "one in flight", "never asked", "no worker"],
)
def test_a_model_is_drained_when_every_worker_knows_and_nothing_is_in_flight(
    message: CountsMessage, drained: bool
) -> None:
    assert is_drained(message, "a", 5) is drained


def test_only_a_stats_plugin_that_is_heard_for_a_while_and_still_is_proves_anything() -> None:
    watch = DrainWatch(90.0)
    assert not watch.is_drained("a", 5, 100.0)
    for second in range(5):
        watch.hear(counts(0, 5), 100.0 + second)
        assert watch.is_drained("a", 5, 100.0 + second) is (second >= SETTLED)
    assert watch.is_drained("a", 5, 104.0 + STALE)
    assert not watch.is_drained("a", 5, 104.1 + STALE)
    watch.hear(counts(0, 5), 120.0)
    assert not watch.is_drained("a", 5, 120.0)
    watch.hear(counts(0, 5), 122.0)
    watch.hear(counts(0, 5), 123.0)
    assert watch.is_drained("a", 5, 123.0)
    watch.hear(counts(0, pid=2), 124.0)
    assert not watch.is_drained("a", 5, 124.0)
