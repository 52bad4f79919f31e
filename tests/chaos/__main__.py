"""`python -m tests.chaos`: the chaos matrix, or the faults, as a Markdown table. Exit code 1 where one fails."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Iterable

from tests.chaos.cells import QUICK, Cell, Found, Target, every_cell, faults_of
from tests.chaos.faults import HEAD, ROWS, run_rows
from tests.chaos.scene import run_cell

_HEAD = ("target", "fault", "situation", "owed", "seconds to service", "orphans", "double starts", "cut streams")


def main(arguments: Iterable[str] | None = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="What a set of models survives.")
    parser.add_argument("--only", action="append", choices=[str(target) for target in Target], metavar="TARGET")
    parser.add_argument("--quick", action="store_true", help="four cells: shows that it works")
    parser.add_argument(
        "--settle", type=float, default=10.0, metavar="SECONDS", help="how long to look on after service is back [10]"
    )
    names = [row.name for row in ROWS]
    parser.add_argument("--faults", action="store_true", help="the other faults, instead of the matrix (5 minutes)")
    parser.add_argument(
        "--fault", action="append", choices=names, metavar="NAME", help=f"this one alone: {', '.join(names)}"
    )
    parser.add_argument("--jobs", type=int, default=3, metavar="N", help="faults that are tried side by side [3]")
    options = parser.parse_args(None if arguments is None else list(arguments))
    print(f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}")
    if options.faults or options.fault:
        return _try_faults(options.fault or names, options.jobs)
    cells = [
        cell for cell in (QUICK if options.quick else every_cell()) if not options.only or cell.target in options.only
    ]
    print(f"\n| {' | '.join(_HEAD)} | verdict |\n|{' --- |' * (len(_HEAD) + 1)}", flush=True)
    verdicts = [_try(cell, options.settle) for cell in cells]  # every one has its turn
    return int(not all(verdicts))


def _try_faults(names: Iterable[str], jobs: int) -> int:
    print(f"\n| {' | '.join(HEAD)} |\n|{' --- |' * len(HEAD)}", flush=True)
    passed = True
    for verdict in run_rows([row for row in ROWS if row.name in names], max(1, jobs)):
        print(verdict.line(), flush=True)
        passed = passed and verdict.passed
    return int(not passed)


def _try(cell: Cell, settle: float) -> bool:
    try:
        found = run_cell(cell, settle)
        faults = faults_of(cell, found)
    except Exception as error:  # a cell that breaks is a cell that fails, and the others have their turn
        found, faults = Found(None), [f"{type(error).__name__}: {error}"]
    back = "never" if found.back is None else f"{found.back:.1f}"
    streams = found.whole + found.cut + found.false
    cut = f"{found.cut + found.false} of {streams}" if streams else "-"
    verdict = f"**FAILS**: {'; '.join(faults)}" if faults else "holds"
    row = (
        cell.target,
        cell.fault,
        cell.situation,
        cell.owed,
        back,
        str(found.orphans),
        str(found.doubles),
        cut,
        verdict,
    )
    print("| " + " | ".join(text.replace("|", "\\|").replace("\n", " ") for text in row) + " |", flush=True)
    return not faults


if __name__ == "__main__":
    sys.exit(main())
