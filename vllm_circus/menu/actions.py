"""What can sensibly be done with a model in its state: pure.

Rules: what makes no sense is not offered; what would, and cannot be, is shown with the reason; what most people want
next stands first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from vllm_circus.lifecycle.states import State
from vllm_circus.menu.ask import Choice

if TYPE_CHECKING:
    from vllm_circus.bus.messages import ModelState

Deed = Literal["start", "stop", "restart", "sleep", "deep sleep", "wake", "why", "logs", "remove"]

_UP = frozenset({State.READY, State.UNHEALTHY, State.QUEUED, State.LOADING, State.WAKING})
_TROUBLE = frozenset({State.UNHEALTHY, State.BACKOFF, State.FAILED})
_ENDING = frozenset({State.DRAINING, State.STOPPING})
_LOGS: Choice[Deed] = Choice("logs", "Logs", "what its engine says, as it comes")
_WHY = "why it is not ready, or crashed last"


@dataclass(frozen=True)
class Engine:
    """One engine of the model that is meant: `state` is None where nobody tells; `sleeps` has it a sleep mode."""

    state: ModelState | None
    sleeps: bool = False

    @property
    def now(self) -> State | None:
        """Its state."""
        return self.state.state if self.state else None


def deeds(engines: Sequence[Engine], *, in_flight: int = 0) -> Iterator[Choice[Deed]]:
    """What to offer for a model with these engines, several where it has replicas; `in_flight` counts its requests."""
    states = {engine.now for engine in engines}
    known = states - {None}
    if known & _TROUBLE:
        yield Choice("why", "Why", _WHY)
    if known & {State.SLEEPING}:
        yield Choice("wake", "Wake", "read its weights back and serve")
    if known & {State.STOPPED, State.FAILED, State.BACKOFF, *_ENDING}:
        yield Choice("start", "Start", "try again now" if known & _TROUBLE else "load it and serve")
    if states == {State.READY}:  # whoever looks at one that is well wants to see, first of all
        yield _LOGS
    if known & {State.READY}:
        yield from _sleep(engines)
    if known & {*_UP, State.SLEEPING}:
        yield Choice("restart", "Restart", _drained("end its process and start another", in_flight))
    if states - {State.STOPPED, *_ENDING}:
        yield Choice("stop", "Stop", _drained("its GPUs become free", in_flight))
    if not known & _TROUBLE and states - {State.READY}:
        yield Choice("why", "Why", _WHY)
    if states != {State.READY}:
        yield _LOGS
    yield Choice("remove", "Remove", "take it out of the models file, and stop it")


def _sleep(engines: Sequence[Engine]) -> Iterator[Choice[Deed]]:
    barred = (
        "" if any(engine.sleeps for engine in engines) else "it was started without `sleep: true` in the models file"
    )
    yield Choice("sleep", "Sleep", "give its GPU memory back; the next request wakes it", barred)
    if not barred:
        yield Choice("deep sleep", "Sleep deeply", "give the machine's memory back as well; waking takes longer")


def _drained(what: str, in_flight: int) -> str:
    if not in_flight:
        return what
    waits = "1 request in flight ends" if in_flight == 1 else f"{in_flight} requests in flight end"
    return f"{what}; {waits} first"
