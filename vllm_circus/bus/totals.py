"""Sum up what proxy workers tell, exactly: nothing is lost and nothing counted twice.

Every `WorkerMessage` is cumulative since its worker started, so only the last one of each worker counts, and a lost
one loses nothing. A worker that is gone keeps its last snapshot here for a while, since a message of its may still be
on its way; when many have gone, the oldest is folded into `base` for good. Pure: whether a worker lives is told.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING

from vllm_circus.bus.messages import Histogram, ModelCounts, WorkerMessage

if TYPE_CHECKING:
    from pydantic import TypeAdapter

VERSION = 1
#: Dead workers whose last snapshot is kept apart.
KEPT = 32


@dataclass(frozen=True)
class Worker:
    """One worker's last snapshot, with when it came (wall clock), and whether its process still runs."""

    message: WorkerMessage
    seen_at: float
    alive: bool = True


@dataclass(frozen=True)
class Totals:
    """Everything counted so far.

    Attributes:
        base: the sums of workers that were folded; `unrouted` likewise.
        workers: by worker name, in the order in which they were first heard of.
    """

    base: dict[str, ModelCounts] = field(default_factory=dict)
    unrouted: dict[int, int] = field(default_factory=dict)
    workers: dict[str, Worker] = field(default_factory=dict)
    version: int = VERSION


def take(totals: Totals, message: WorkerMessage, now: float) -> Totals:
    """The totals after a worker's message. `now` is the wall clock; one that says it leaves is not alive any more.

    A worker with the same pid as an earlier one is its successor: the kernel gave the number out again. The last
    words of the earlier one may come after the first ones of its successor; they are counted, and bury nobody.
    """
    of_this_pid = [name for name, worker in totals.workers.items() if worker.message.pid == message.pid]
    if message.worker in of_this_pid[:-1]:
        return replace(totals, workers=totals.workers | {message.worker: Worker(message, now, alive=False)})
    workers = {
        name: replace(worker, alive=False) if worker.message.pid == message.pid else worker
        for name, worker in totals.workers.items()
    }
    workers[message.worker] = Worker(message, now, alive=not message.leaving)
    return replace(totals, workers=workers)


def bury(totals: Totals, gone: Collection[str], *, kept: int = KEPT) -> Totals:
    """The totals after the processes of some workers are gone; more than `kept` dead ones are folded into the base."""
    workers = {
        name: replace(worker, alive=False) if name in gone else worker for name, worker in totals.workers.items()
    }
    dead = [name for name, worker in workers.items() if not worker.alive]
    base, unrouted = totals.base, totals.unrouted
    for name in dead[: max(0, len(dead) - kept)]:
        message = workers.pop(name).message
        base = add_models((base, at_rest(message.models)))
        unrouted = add_numbers((unrouted, message.unrouted))
    return replace(totals, base=base, unrouted=unrouted, workers=workers)


def model_sums(totals: Totals) -> dict[str, ModelCounts]:
    """The counts of every model, over all workers that ever were."""
    parts = (
        worker.message.models if worker.alive else at_rest(worker.message.models) for worker in totals.workers.values()
    )
    return add_models((totals.base, *parts))


def unrouted_sums(totals: Totals) -> dict[int, int]:
    """Requests that named no known model, by status, over all workers that ever were."""
    return add_numbers((totals.unrouted, *(worker.message.unrouted for worker in totals.workers.values())))


def at_rest(models: Mapping[str, ModelCounts]) -> dict[str, ModelCounts]:
    """The same counts with nothing in flight or waiting: what a dead worker had is gone with it."""
    return {name: replace(counts, in_flight=0, waiting=0) for name, counts in models.items()}


def add_models(parts: Iterable[Mapping[str, ModelCounts]]) -> dict[str, ModelCounts]:
    """Sum by model."""
    sums: dict[str, ModelCounts] = {}
    for part in parts:
        for name, counts in part.items():
            sums[name] = add_counts(sums[name], counts) if name in sums else counts
    return sums


def add_counts(one: ModelCounts, other: ModelCounts) -> ModelCounts:
    """Field by field."""
    return ModelCounts(
        statuses=add_numbers((one.statuses, other.statuses)),
        in_flight=one.in_flight + other.in_flight,
        waiting=one.waiting + other.waiting,
        streams=one.streams + other.streams,
        chunks=one.chunks + other.chunks,
        prompt_tokens=one.prompt_tokens + other.prompt_tokens,
        completion_tokens=one.completion_tokens + other.completion_tokens,
        cut=one.cut + other.cut,
        request_bytes=one.request_bytes + other.request_bytes,
        response_bytes=one.response_bytes + other.response_bytes,
        first_token=add_histograms(one.first_token, other.first_token),
        duration=add_histograms(one.duration, other.duration),
        chunk_gap=add_histograms(one.chunk_gap, other.chunk_gap),
    )


def add_histograms(one: Histogram, other: Histogram) -> Histogram:
    """Bucket by bucket. Histograms with other buckets (of another release) cannot be added: the larger one stays."""
    if len(one.counts) != len(other.counts):
        return max(one, other, key=lambda histogram: histogram.count)
    counts = tuple(a + b for a, b in zip(one.counts, other.counts, strict=True))
    return Histogram(counts, one.total + other.total)


def add_numbers(parts: Iterable[Mapping[int, int]]) -> dict[int, int]:
    """Sum by key."""
    sums: dict[int, int] = {}
    for part in parts:
        for key, number in part.items():
            sums[key] = sums.get(key, 0) + number
    return dict(sorted(sums.items()))


def dump_totals(totals: Totals) -> bytes:
    """The totals as JSON."""
    return _adapter().dump_json(totals)


def load_totals(data: bytes) -> Totals:
    """The totals read back. Raises ValueError on anything that `dump_totals` of this version did not write."""
    totals = _adapter().validate_json(data)
    if totals.version != VERSION:
        raise ValueError(f"totals of version {totals.version}, this program reads {VERSION}")
    return totals


@cache
def _adapter() -> TypeAdapter[Totals]:
    from pydantic import TypeAdapter

    return TypeAdapter(Totals)
