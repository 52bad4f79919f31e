"""Whether a model that is to end is free of requests: judged by what the stats plugin tells of the proxy workers.

Rule: an empty count proves nothing before every living worker has heard that the model is draining, since one that has
not may send a request any moment.
"""

from __future__ import annotations

from vllm_circus.bus.messages import CountsMessage


def is_drained(counts: CountsMessage | None, model: str, sequence: int) -> bool:
    """Whether no request is in flight for the model, and none will come.

    `sequence` is that of the first message that called it draining; `counts` is the last one heard, if any.
    """
    if counts is None or any(worker.sequence < sequence for worker in counts.workers):
        return False
    of_model = counts.models.get(model)
    return of_model is None or of_model.in_flight == 0
