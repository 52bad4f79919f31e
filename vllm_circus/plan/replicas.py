"""Engines side by side: a model with `replicas: N` becomes N of them, NAME-1 to NAME-N.

Rules: what the file says of the model holds for each of them, but for what cannot be shared. GPUs are dealt out in
order and in equal parts, a written port is the first one's. Clients know only the model's name.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from vllm_circus.plan.draft import Draft, Notes

#: Engines of one set: as many as there are ranges of internal ports for.
MOST_ENGINES = 1000
_LAST_PORT = 65535


def deal_out(drafts: tuple[Draft, ...], notes: Notes) -> tuple[Draft, ...]:
    """A draft for every engine, in the file's order; GPUs that cannot be shared out and ports past the last are noted.

    Where there are too many engines, those beyond `MOST_ENGINES` are left out.
    """
    engines: list[Draft] = []
    for draft in drafts:
        count = draft.own.replicas
        if len(engines) + count > MOST_ENGINES:
            message = f"with these, the file has more than {MOST_ENGINES:,} engines"
            notes.fault(draft.at("replicas"), message, "write fewer `replicas`")
            break
        engines += _replicas(draft, notes) if count > 1 else (draft,)
    return tuple(engines)


def _replicas(draft: Draft, notes: Notes) -> Iterator[Draft]:
    count = draft.own.replicas
    _check_port(draft, notes)
    shares = _shares(draft, notes)
    for number in range(1, count + 1):
        port = None if draft.port is None else min(draft.port + number - 1, _LAST_PORT)
        yield replace(draft, replica=number, gpus=shares[number - 1], port=port)


def _check_port(draft: Draft, notes: Notes) -> None:
    last = (draft.port or 0) + draft.own.replicas - 1
    if last > _LAST_PORT:
        message = f"{draft.own.replicas} replicas have ports from {draft.port} on, and {last} is none"
        notes.fault(draft.at("port"), message, "write a lower one, or remove it to get free ones")


def _shares(draft: Draft, notes: Notes) -> list[tuple[int, ...] | None]:
    """The GPUs of each replica, in order."""
    count, gpus = draft.own.replicas, draft.gpus
    if not gpus:
        return [gpus] * count
    size, over = divmod(len(gpus), count)
    if over:
        numbers = [number for number in (size * count, (size + 1) * count) if number]
        listed = f"{len(gpus)} GPU{'s' * (len(gpus) > 1)}"
        message = f"{listed} cannot be dealt out evenly among {count} replicas"
        fix = f"list {' or '.join(map(str, numbers))} GPUs, or write another number of `replicas`"
        notes.fault(draft.at("gpus"), message, fix)
        return [None] * count  # nothing that follows from a share that nobody meant
    return [gpus[number * size : (number + 1) * size] for number in range(count)]
