"""What may happen to a model, and what is to be done about it: the words that the state machine speaks.

Every event is a fact, every action a wish; neither does anything by itself. Processes are named by the pid of their
session's leader, the API server.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Moment(NamedTuple):
    """Now: `steady` (CLOCK_MONOTONIC, seconds) decides, `wall` (seconds since 1970) is for showing only."""

    steady: float
    wall: float


@dataclass(frozen=True)
class Spawned:
    """A process of the model's watcher appeared, whoever asked for it."""

    pid: int


@dataclass(frozen=True)
class Exited:
    """The process is gone (an exit code of 0 says nothing about why). `cause` is one line for people."""

    pid: int
    cause: str


@dataclass(frozen=True)
class Explained:
    """More became known about why a process is gone."""

    pid: int
    cause: str


@dataclass(frozen=True)
class Withdrawn:
    """circus stops the process, and not because we asked: an operator did, or the whole set goes down."""

    pid: int


@dataclass(frozen=True)
class StartRefused:
    """No process came of a `Start`."""

    cause: str


@dataclass(frozen=True)
class Cleaned:
    """Nothing is left of the session of a process that is gone, and circus knows that it is gone."""

    pid: int


@dataclass(frozen=True)
class ProbeOk:
    """The engine answered as it should to a probe begun at `asked` (steady clock)."""

    asked: float


@dataclass(frozen=True)
class ProbeFailed:
    """It did not. `answered` is whether anything answered at all."""

    asked: float
    cause: str
    answered: bool = False


@dataclass(frozen=True)
class PhaseSeen:
    """The log told what loading is at."""

    phase: str


@dataclass(frozen=True)
class Drained:
    """No request for the model is in flight, and no proxy worker will send another."""


@dataclass(frozen=True)
class Admitted:
    """It is this model's turn to start."""


@dataclass(frozen=True)
class StartWished:
    """An operator (or the start of the set) wants it to run."""


@dataclass(frozen=True)
class StopWished:
    """An operator wants it not to run."""


@dataclass(frozen=True)
class RestartWished:
    """An operator wants a new process."""


@dataclass(frozen=True)
class Resumed:
    """We ourselves were away (stopped, suspended): silence meanwhile was ours, not the engine's."""


@dataclass(frozen=True)
class Tick:
    """Time went on."""


Event = (
    Spawned
    | Exited
    | Explained
    | Withdrawn
    | StartRefused
    | Cleaned
    | ProbeOk
    | ProbeFailed
    | PhaseSeen
    | Drained
    | Admitted
    | StartWished
    | StopWished
    | RestartWished
    | Resumed
    | Tick
)


@dataclass(frozen=True)
class Start:
    """Have circus start the watcher; answer with `Spawned` or `StartRefused`."""


@dataclass(frozen=True)
class Terminate:
    """SIGTERM to the process."""

    pid: int


@dataclass(frozen=True)
class Kill:
    """SIGKILL to the process and everything in its session."""

    pid: int


@dataclass(frozen=True)
class CleanUp:
    """Have circus see that the process is gone, end what is left of its session; answer with `Cleaned`."""

    pid: int


Action = Start | Terminate | Kill | CleanUp
