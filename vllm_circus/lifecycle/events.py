"""What may happen to a model, and what is to be done about it: the words that the state machine speaks.

Every event is a fact, every action a wish; neither does anything by itself. Processes are named by the pid of their
session's leader, the API server.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from vllm_circus.lifecycle.life import Diagnosis


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
    """The process is gone (an exit code of 0 says nothing about why)."""

    pid: int
    why: Diagnosis


@dataclass(frozen=True)
class Explained:
    """More became known about why a process is gone."""

    pid: int
    why: Diagnosis


@dataclass(frozen=True)
class Withdrawn:
    """circus stops the process, and not because we asked: an operator did, or the whole set goes down."""

    pid: int


@dataclass(frozen=True)
class StartRefused:
    """No process came of a `Start`."""

    why: Diagnosis


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
class Counted:
    """What the engine counts: requests that run in it, and its steps since it was started (asked for at `asked`)."""

    asked: float
    running: float
    iterations: float


@dataclass(frozen=True)
class Halted:
    """A process of its engine does not run any more and did not end: it was stopped (SIGSTOP) for a while now.

    `pid` is that process, of the session that `leader` leads.
    """

    leader: int
    pid: int


@dataclass(frozen=True)
class Answering:
    """Clients got answers from it since the last word of the workers: it lives, whatever its health page says."""


@dataclass(frozen=True)
class Asked:
    """Requests for it are in flight or waiting, or were since the last word of the workers."""


@dataclass(frozen=True)
class Quiet:
    """There were none."""


@dataclass(frozen=True)
class Unheard:
    """Nobody tells of requests (the stats plugin is silent): neither busy nor idle is known."""


@dataclass(frozen=True)
class Wanted:
    """A request waits for it, and it takes none now."""


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
    """An operator wants it to run, or with `awaited` False the set does: no request is to wait for that."""

    awaited: bool = True


@dataclass(frozen=True)
class StopWished:
    """An operator wants it not to run."""


@dataclass(frozen=True)
class RestartWished:
    """An operator wants a new process."""


@dataclass(frozen=True)
class SleepWished:
    """An operator wants it to sleep."""

    level: Literal[1, 2]


@dataclass(frozen=True)
class WakeWished:
    """An operator wants it awake."""


@dataclass(frozen=True)
class TurnOver:
    """Another model of its `exclusive` name has the turn: it is to sleep, or to end where it cannot."""


@dataclass(frozen=True)
class Slept:
    """The engine sleeps."""

    pid: int


@dataclass(frozen=True)
class FoundAsleep:
    """The engine says that it sleeps, and nobody remembers that it was told to."""

    pid: int


@dataclass(frozen=True)
class SleepRefused:
    """The engine does not go to sleep."""

    pid: int
    cause: str


@dataclass(frozen=True)
class Woken:
    """The engine was woken up; a probe says whether it answers."""

    pid: int


@dataclass(frozen=True)
class WakeRefused:
    """The engine does not wake up."""

    pid: int
    cause: str


@dataclass(frozen=True)
class Resumed:
    """We ourselves were away (stopped, suspended): silence meanwhile was ours, not the engine's."""


@dataclass(frozen=True)
class Tick:
    """Time went on. `calm` is whether no other model loads or wakes up on its GPUs."""

    calm: bool = True


Event = (
    Spawned
    | Exited
    | Explained
    | Withdrawn
    | StartRefused
    | Cleaned
    | ProbeOk
    | ProbeFailed
    | Counted
    | Halted
    | Answering
    | Asked
    | Quiet
    | Unheard
    | Wanted
    | PhaseSeen
    | Drained
    | Admitted
    | StartWished
    | StopWished
    | RestartWished
    | SleepWished
    | WakeWished
    | TurnOver
    | Slept
    | FoundAsleep
    | SleepRefused
    | Woken
    | WakeRefused
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


@dataclass(frozen=True)
class Sleep:
    """Have the engine go to sleep; answer with `Slept` or `SleepRefused`."""

    pid: int
    level: int


@dataclass(frozen=True)
class Wake:
    """Wake the engine up from a sleep of that level; answer with `Woken` or `WakeRefused`."""

    pid: int
    level: int


Action = Start | Terminate | Kill | CleanUp | Sleep | Wake
