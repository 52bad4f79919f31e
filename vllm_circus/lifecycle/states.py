"""The states of a model, and what follows from each for everybody else."""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """Where a model is in its life.

    stopped → queued → loading → ready → draining → stopping → stopped; ready → unhealthy → (ready | stopping → queued);
    a crash leads to backoff → queued, and to failed after too many; ready → draining → sleeping → waking → ready, and
    from sleeping and waking to stopping, too.
    """

    STOPPED = "stopped"
    QUEUED = "queued"
    LOADING = "loading"
    READY = "ready"
    UNHEALTHY = "unhealthy"
    DRAINING = "draining"
    STOPPING = "stopping"
    BACKOFF = "backoff"
    FAILED = "failed"
    SLEEPING = "sleeping"
    WAKING = "waking"

    @property
    def routable(self) -> bool:
        """Whether the proxy sends requests there."""
        return self is State.READY

    @property
    def coming(self) -> bool:
        """Whether it will be ready without anybody doing anything: a client may be told to come again."""
        return self in {State.QUEUED, State.LOADING, State.BACKOFF, State.UNHEALTHY, State.WAKING}

    @property
    def settled(self) -> bool:
        """Whether waiting for a start is over, well or ill."""
        return self in {State.READY, State.FAILED, State.STOPPED, State.SLEEPING}
