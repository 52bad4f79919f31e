"""One model now: everything that the state machine remembers of it. Rules and theory: `machine`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from vllm_circus.lifecycle.states import State


class After(StrEnum):
    """What follows when a process that is to end has ended."""

    REST = "rest"
    START = "start"
    RETRY = "retry"


@dataclass(frozen=True)
class Life:
    """One model now.

    Attributes:
        since, since_at: when it came into this state, by the steady and the wall clock.
        reason: why, one line for people; the last crash's while it is being started again.
        pid, started, started_at: the process, while there is one.
        tries, restarts: see rule 6.
        failures: failed probes in a row; silent_since: when the first of them began.
        answered: when the last good probe began.
        due: when this state is left, or the next SIGKILL sent.
        after: what follows draining and stopping.
        remains: processes that are gone, but perhaps not everything of their sessions.
        dead: the process that died last.
    """

    state: State = State.STOPPED
    since: float = 0.0
    since_at: float = 0.0
    reason: str = ""
    pid: int | None = None
    started: float = 0.0
    started_at: float | None = None
    phase: str = ""
    tries: int = 0
    restarts: int = 0
    failures: int = 0
    silent_since: float | None = None
    answered: float = 0.0
    due: float | None = None
    after: After = After.REST
    remains: tuple[int, ...] = ()
    dead: int | None = None
