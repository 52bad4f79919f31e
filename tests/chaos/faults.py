"""The faults whose figures are owed, a row for each: `python -m tests.chaos --faults`.

Rows mostly wait, so several run side by side, each with a set of its own; the table keeps its order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tests.chaos.engine_faults import crash_loop, hung_server, server_killed, slow_load
from tests.chaos.ground import Notes, NotTried
from tests.chaos.other_faults import (
    circusd_killed,
    clock_set,
    disk_full,
    log_gone,
    plugins_killed,
    second_start,
)

HEAD = ("fault", "what is done", "owed", "found", "verdict")


@dataclass(frozen=True)
class Row:
    """A row of the table; `run` tries it and notes what it finds."""

    name: str
    done: str
    owed: str
    run: Callable[[Notes], None]


ROWS = (
    Row(
        "crash-loop",
        "an engine exits 3 at once, again and again; another one may try three times",
        "first restart at once, then growing pauses, at most 6 starts in 120 s; `failed` in the end, `why` explains;"
        " 0 failed requests to others",
        crash_loop,
    ),
    Row(
        "slow-load",
        "a load of 60 s, nothing known of it, and then another one",
        "never killed; 503 with Retry-After and phase; the second time Retry-After true within 2 s",
        slow_load,
    ),
    Row(
        "hung-server",
        "SIGSTOP of an API server; one whose health page is silent; one that makes no step",
        "out of the routes within 10 s, back within 30 s (no step: by `hang_after`); 0 failed requests to others",
        hung_server,
    ),
    Row(
        "server-killed",
        "kill -9 of an API server with two workers",
        "its tree gone within 10 s, one set only",
        server_killed,
    ),
    Row(
        "circusd-killed",
        "kill -9 of circusd; 10 s later the next start",
        "nothing left after 10 s, or ended by the next start; never two sets",
        circusd_killed,
    ),
    Row(
        "second-start",
        "`up`, `up -d` and `run` of an instance that runs",
        "refused, exit code 1, says who runs; 0 failed requests",
        second_start,
    ),
    Row(
        "disk-full",
        "logs and states on a small tmpfs that is full for a while",
        "0 failed requests; the loss counted and said; logging back within 5 s after there is room; states whole",
        disk_full,
    ),
    Row(
        "log-gone",
        "under load a log is deleted, renamed away, and grows over its greatest size",
        "no line lost that is not said; goes on in a new file within 5 s",
        log_gone,
    ),
    Row(
        "clock-set",
        "the clock is set by +1 h, then by -2 h, for every process of the set, under load",
        "no restart, no ejection, 0 failed requests; ages right",
        clock_set,
    ),
    Row(
        "plugins-killed",
        "kill -9 of health and stats under load, twice",
        "nothing restarted, states and counts go on, back within 5 s, 0 failed requests",
        plugins_killed,
    ),
)


@dataclass(frozen=True)
class Verdict:
    """A row that was run."""

    row: Row
    found: str
    verdict: str
    passed: bool

    def line(self) -> str:
        """As a line of the table."""
        cells = (self.row.name, self.row.done, self.row.owed, self.found, self.verdict)
        return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def run_rows(rows: Iterable[Row], jobs: int) -> Iterator[Verdict]:
    """Run rows, so many at once, and give their verdicts in order."""
    with ThreadPoolExecutor(jobs) as pool:
        yield from pool.map(run_row, rows)


def run_row(row: Row) -> Verdict:
    """Run one row; one that breaks is one that fails, and the others have their turn."""
    notes = Notes()
    try:
        row.run(notes)
    except NotTried as reason:
        return Verdict(row, str(reason), "not tried", True)
    except Exception as error:
        notes.faults.append(f"{type(error).__name__}: {error}")
    found = "; ".join(notes.figures)
    return Verdict(row, found, f"**FAILS**: {'; '.join(notes.faults)}" if notes.faults else "holds", not notes.faults)
