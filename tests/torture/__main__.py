"""`python -m tests.torture [NAME…]`: what the relay stands, as a Markdown table. Exit code 1 when a row fails."""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import resource
import sys
import time

import uvloop

from tests.torture.rows import ROWS
from tests.torture.stage import Effort, Result, Row

_VERDICTS = {True: "holds", False: "**FAILS**", None: "not tried"}


def main() -> int:
    """Returns the exit code."""
    names = [row.name for row in ROWS]
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description="What the relay stands.")
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"rows to run, all of them otherwise: {', '.join(names)}"
    )
    parser.add_argument("--quick", action="store_true", help="small and short: shows that it works")
    parser.add_argument("--soak", type=float, default=600.0, metavar="SECONDS", help="how long the soak takes [600]")
    parser.add_argument("--fuzz", type=float, default=60.0, metavar="SECONDS", help="how long the fuzz takes [60]")
    options = parser.parse_args()
    if unknown := set(options.names) - set(names):
        parser.error(f"there is no row called {', '.join(sorted(unknown))}")
    effort = Effort(options.quick, options.soak, options.fuzz)
    if options.quick:
        effort = Effort(True, 4.0, 1.0)
    _raise_nofile()
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}"
    )
    print(
        "\n| row | what is done | owed | found | verdict | seconds | load |\n|" + " --- |" * 7,
        flush=True,
    )
    chosen = [row for row in ROWS if not options.names or row.name in options.names]
    verdicts = [_try(row, effort) for row in chosen]
    return int(not all(verdicts))


def _try(row: Row, effort: Effort) -> bool:
    began = time.monotonic()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            result = runner.run(_run(row, effort))
    except Exception as error:  # a row that breaks is a row that fails, and the others have their turn
        result = Result(f"{type(error).__name__}: {error}", passed=False)
    took, load = time.monotonic() - began, os.getloadavg()[0]  # a busy machine explains a slow answer
    verdict = _VERDICTS[result.passed]
    cells = (row.name, row.title, row.bound, result.figure, verdict, f"{took:.0f}", f"{load:.1f}")
    print("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |", flush=True)
    return result.passed is not False


async def _run(row: Row, effort: Effort) -> Result:
    return await row.run(effort)


def _raise_nofile() -> None:
    """Thousands of clients are files of ours."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    sys.exit(main())
