"""One model now: everything that the state machine remembers of it. Rules and theory: `machine`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from vllm_circus.lifecycle.states import State


class After(StrEnum):
    """What follows draining: SLEEP keeps the process, and all others end it first."""

    REST = "rest"
    START = "start"
    RETRY = "retry"
    SLEEP = "sleep"


class Ending(StrEnum):
    """Why it drains: an operator's wish, nobody asks for it, or another of its `exclusive` name has the turn."""

    WISH = "wish"
    IDLE = "idle"
    TURN = "turn"


@dataclass(frozen=True)
class Diagnosis:
    """Why an engine ended or could not be started.

    Attributes:
        cause: one line for people.
        fix: what to do about it, one sentence; empty where nobody knows.
        signature: which known cause it is (see `doctor`); empty for an unknown one.
        code: exit code, negative for a signal; None where there is none.
        evidence: the log lines that tell, cleaned, at most a dozen.
    """

    cause: str
    fix: str = ""
    signature: str = ""
    code: int | None = None
    evidence: tuple[str, ...] = ()


@dataclass(frozen=True)
class Crash:
    """An end that nobody asked for, or a start that came to nothing.

    Attributes:
        at: wall-clock seconds since 1970.
        why: see there.
        pid: of the API server; None where no process came of it.
        ran: seconds from its start to its end.
    """

    at: float
    why: Diagnosis
    pid: int | None = None
    ran: float = 0.0


@dataclass(frozen=True)
class Life:
    """One model now.

    Attributes:
        since, since_at: when it came into this state, by the steady and the wall clock.
        reason: why, one line for people; the last crash's while it is being started again.
        pid, started, started_at: the process, while there is one.
        tries, restarts: see rule 6.
        failures: failed probes in a row; silent_since: when the first of them began.
        answered: when the last good probe began; heard: when clients last got answers; None before the first.
        due: when this state is left, or the next SIGKILL sent.
        after: what follows draining and stopping; ending: why it drains.
        dozing: free of requests, it was asked to sleep and did not say yet that it does.
        woken: when it said that it woke up, and still has to answer a probe; None before.
        verdict: why we end it ourselves (`After.RETRY`), kept until the next process; None where we do not.
        remains: processes that are gone, but perhaps not everything of their sessions.
        dead: the process that died last.
        fix: what to do about `reason`; empty where nobody knows.
        crash: the last one, kept while it runs again; None where none was.
        digest: of the plan that the process was started with.
        names: those that the process was started with.
        on_call: at rest or asleep until somebody asks for it: by `on_demand`, idleness or another's turn, and not
            because an operator stopped it.
        wished: it is on its way since an operator or a request wanted so: requests may wait for it.
        level: how deeply it sleeps or is to sleep.
        quiet: since when the workers told of no request for it, and nothing else; None while there are some, and
            while nobody tells.
        waits: since when it waits for its turn to start or to wake up; None while it does not.
        iterations, frozen: the engine's counter of steps when it was last read, and since when it stood still with
            requests running; None while it moves.
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
    heard: float | None = None
    due: float | None = None
    after: After = After.REST
    ending: Ending = Ending.WISH
    dozing: bool = False
    woken: float | None = None
    verdict: Diagnosis | None = None
    remains: tuple[int, ...] = ()
    dead: int | None = None
    fix: str = ""
    crash: Crash | None = None
    digest: str = ""
    names: tuple[str, ...] = ()
    on_call: bool = False
    wished: bool = False
    level: int = 1
    quiet: float | None = None
    waits: float | None = None
    iterations: float | None = None
    frozen: float | None = None
