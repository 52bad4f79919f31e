"""The matrix: who is hit, by what, in which situation, and what is owed then. Pure."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import product


class Target(StrEnum):
    """Who is hit."""

    CIRCUSD = "circusd"
    WORKER = "proxy worker"
    HEALTH = "health"
    STATS = "stats"
    SERVER = "API server"
    ENGINE = "engine"


class Fault(StrEnum):
    """By what. Who is stopped stays so."""

    KILL = "kill -9"
    STOP = "SIGSTOP"

    @property
    def signal(self) -> signal.Signals:
        """What is sent."""
        return signal.SIGKILL if self is Fault.KILL else signal.SIGSTOP


class Situation(StrEnum):
    """What goes on meanwhile: nothing, the second model loads, or streams of the first one run."""

    IDLE = "idle"
    LOADING = "loading"
    STREAMING = "streaming"


#: Seconds that the second model loads where loading is the situation; the least that a load takes elsewhere.
LONG_LOAD = 4.0
SHORT_LOAD = 0.3
#: Seconds that the start of an engine's processes takes beside that.
_START = 0.5
#: Seconds until service is back, without the load; of a stopped part of an engine, which has to be noticed first.
BACK = 5.0
BACK_FROM_STOP = 10.0
#: Seconds until a stopped part of an engine is out of the routes.
OUT = 10.0
#: Seconds that processes which nobody looks after may still be there.
ORPHANS = 10.0
_ENGINE_PARTS = frozenset({Target.SERVER, Target.ENGINE})
_BYSTANDERS = frozenset({Target.CIRCUSD, Target.HEALTH, Target.STATS})


@dataclass(frozen=True)
class Cell:
    """One cell of the matrix; `wide` makes its bound of time wide, where other tests run beside it."""

    target: Target
    fault: Fault
    situation: Situation
    wide: bool = False

    @property
    def victim(self) -> str:
        """The model that is hit, where one is."""
        return "beta" if self.situation is Situation.LOADING else "alpha"

    @property
    def load(self) -> float:
        """Seconds for which the second model loads; the first one takes the least."""
        return LONG_LOAD if self.situation is Situation.LOADING else SHORT_LOAD

    @property
    def hits_engine(self) -> bool:
        """Whether a part of an engine is hit."""
        return self.target in _ENGINE_PARTS

    @property
    def limit(self) -> float:
        """Seconds until both models answer again, at most."""
        back = _START + (BACK_FROM_STOP if self.hits_engine and self.fault is Fault.STOP else BACK)
        return self.load + (10 * back if self.wide else back)

    @property
    def must_leave_routes(self) -> bool:
        """Whether the victim has to be taken out of the routes before it is started again."""
        return self.hits_engine and self.fault is Fault.STOP and self.situation is not Situation.LOADING

    @property
    def spares_streams(self) -> bool:
        """Whether the streams have nothing to do with who is hit, and end whole: nobody but the set's end cuts them."""
        if self.target is Target.CIRCUSD:
            return self.fault is Fault.STOP
        return self.target in _BYSTANDERS

    @property
    def owed(self) -> str:
        """What is owed, in words."""
        if self.target in _BYSTANDERS and (self.fault is Fault.STOP or self.target is not Target.CIRCUSD):
            return "service goes on"
        if self.target is Target.CIRCUSD:
            return "all end; the next `up` brings all back"
        if self.must_leave_routes:
            return f"out of the routes within {OUT:g} s, started again"
        return "started again"


def every_cell() -> Iterator[Cell]:
    """All 36."""
    return (Cell(*parts) for parts in product(Target, Fault, Situation))


#: Cells that show in a minute that the matrix works.
QUICK = (
    Cell(Target.WORKER, Fault.KILL, Situation.STREAMING),
    Cell(Target.ENGINE, Fault.KILL, Situation.STREAMING),
    Cell(Target.HEALTH, Fault.KILL, Situation.LOADING),
    Cell(Target.CIRCUSD, Fault.KILL, Situation.IDLE),
)


@dataclass(frozen=True)
class Found:
    """What became of a cell. Seconds from the fault; None is never.

    Attributes:
        back: until both models answered; out: until the victim was out of the routes (None also where nobody looked).
        orphans: processes outside of the set that were there to the end; doubles: models seen with two API servers.
        whole, cut, false: streams that ended whole, visibly cut, or cut and looking whole.
    """

    back: float | None
    out: float | None = None
    orphans: int = 0
    doubles: int = 0
    whole: int = 0
    cut: int = 0
    false: int = 0


def faults_of(cell: Cell, found: Found) -> list[str]:
    """What does not hold, in words; nothing where all does."""
    faults = []
    if found.back is None or found.back > cell.limit:
        faults.append(f"service owed within {cell.limit:g} s")
    if cell.must_leave_routes and (found.out is None or found.out > OUT):
        when = "never" if found.out is None else f"after {found.out:.1f} s"
        faults.append(f"out of the routes {when}")
    if found.orphans:
        faults.append("orphans")
    if found.doubles:
        faults.append("two API servers at once")
    if found.false:
        faults.append(f"{found.false} cut streams look whole")
    if found.cut and cell.spares_streams:
        faults.append("streams cut that had nothing to do with it")
    return faults
