"""What the workers' counters say of each model: whether it is asked for, and whether clients get answers. Pure.

Rules: requests in flight or waiting, and those that ended since the last word, are requests for it, whatever became of
them. Those that wait for a model with replicas stand with its first replica, and any of them may get them. An answer is
a sign of life only where the engine made it: those of status 2xx, and the pieces of streams (counted as they come by
the gaps between them; their events are counted at the end). The proxy makes some of the other answers itself, and 499
is a client that left. Counters that may be incomplete do not prove quiet.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from vllm_circus.bus.messages import CountsMessage, ModelCounts
from vllm_circus.lifecycle.events import Answering, Asked, Event, Quiet, Unheard
from vllm_circus.plan.types import ModelPlan

_NONE = ModelCounts()


class Traffic:
    """Hears the counters, and remembers the last ones."""

    def __init__(self) -> None:
        self._last: Mapping[str, ModelCounts] | None = None

    def hear(
        self, counts: CountsMessage, models: Collection[ModelPlan], *, complete: bool
    ) -> Iterator[tuple[str, Event]]:
        """What a message says of each of the models; `complete` is whether every worker is in it."""
        before, self._last = self._last, counts.models
        sought = _sought(counts, models)
        for model in models:
            now = counts.models.get(model.name, _NONE)
            then = now if before is None else before.get(model.name, _NONE)
            if _answers(now) > _answers(then):
                yield model.name, Answering()
            if now.in_flight or now.requests != then.requests or model.group in sought:
                yield model.name, Asked()
            else:
                yield model.name, Quiet() if complete else Unheard()

    def is_busy(self, model: str) -> bool:
        """Whether requests for it were in flight when the workers were last heard."""
        return self._last is not None and self._last.get(model, _NONE).in_flight > 0


def _sought(counts: CountsMessage, models: Collection[ModelPlan]) -> frozenset[str]:
    """The groups that requests wait for."""
    return frozenset(model.group for model in models if counts.models.get(model.name, _NONE).waiting)


def _answers(counts: ModelCounts) -> int:
    ended = sum(number for status, number in counts.statuses.items() if 200 <= status < 300)
    return ended + counts.chunk_gap.count
