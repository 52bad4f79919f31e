"""Whether a model that is to end is free of requests: judged by what the stats plugin tells of the proxy workers.

Rules: an empty count proves nothing before every living worker has heard that the model is draining, since one that has
not may send a request any moment; a stats plugin that has just started proves nothing, since workers may not have told
it of themselves yet; counters that are not repeated any more prove nothing. Pure: the time is told.
"""

from __future__ import annotations

from vllm_circus.bus.messages import HEARTBEAT, CountsMessage

#: Seconds after which counters say nothing about requests in flight now.
STALE = 3 * HEARTBEAT
#: Seconds that a stats plugin must have been heard before it knows every worker: they tell of themselves each second.
SETTLED = 2.5 * HEARTBEAT


class DrainWatch:
    """Hears the counters. Times are of the steady clock."""

    def __init__(self, now: float) -> None:
        self._last: CountsMessage | None = None
        self._heard = now
        self._known_since = now

    def hear(self, counts: CountsMessage, now: float) -> None:
        """A message of the stats plugin's."""
        if self._last is None or self._last.pid != counts.pid or self.is_silent(now):
            self._known_since = now
        self._last, self._heard = counts, now

    def is_silent(self, now: float) -> bool:
        """Whether nobody tells of requests any more, or yet."""
        return now - self._heard > STALE

    def is_complete(self, now: float) -> bool:
        """Whether the counters are those of now, and of every worker."""
        return self._last is not None and not self.is_silent(now) and now - self._known_since >= SETTLED

    def is_drained(self, model: str, sequence: int, now: float) -> bool:
        """Whether no request is in flight for the model, and none will come.

        `sequence` is that of the first message that called it draining.
        """
        if self._last is None or not self.is_complete(now):
            return False
        return is_drained(self._last, model, sequence)


def is_drained(counts: CountsMessage, model: str, sequence: int) -> bool:
    """Whether every living worker has heard that the model drains, and none has a request for it in flight."""
    if any(worker.sequence < sequence for worker in counts.workers):
        return False
    of_model = counts.models.get(model)
    return of_model is None or of_model.in_flight == 0
