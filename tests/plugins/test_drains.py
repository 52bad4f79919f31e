from __future__ import annotations

import pytest

from plugins.drains import is_drained
from vllm_circus.bus.messages import CountsMessage, ModelCounts, WorkerState


def counts(in_flight: int | None, *sequences: int) -> CountsMessage:
    models = {} if in_flight is None else {"a": ModelCounts(in_flight=in_flight), "b": ModelCounts(in_flight=9)}
    workers = tuple(WorkerState(pid, sequence, 1, 0.0) for pid, sequence in enumerate(sequences))
    return CountsMessage(1.0, 1, models, {}, {}, {}, workers, ())


@pytest.mark.parametrize(
    ("message", "drained"),
    [
        (None, False),
        (counts(0, 5, 5), True),
        (counts(0, 6, 7), True),
        (counts(0, 5, 4), False),
        (counts(1, 5, 5), False),
        (counts(None, 5), True),
        (counts(0), True),
    ],
    ids=["silence", "all know", "all know more", "one does not know", "one in flight", "never asked", "no worker"],
)
def test_a_model_is_drained_when_every_worker_knows_and_nothing_is_in_flight(
    message: CountsMessage | None, drained: bool
) -> None:
    assert is_drained(message, "a", 5) is drained
