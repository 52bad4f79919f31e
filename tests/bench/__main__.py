"""The benchmark's command: starts everything, measures in interleaved rounds, prints Markdown tables."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from tests.bench.load import BenchError
from tests.bench.machine import describe
from tests.bench.measures import FULL, QUICK, Effort
from tests.bench.output import write
from tests.bench.process import find_cores, raise_files, threads_of
from tests.bench.report import tables
from tests.bench.run import Bench
from tests.bench.suites import choose, keys, names, scale
from tests.bench.syscalls import count_calls
from tests.bench.targets import run_engine

#: Open files that ten thousand connections need, twice: with one to the engine each.
_FILES = 65_536


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code: 1 where something was answered wrong or did not start."""
    chosen = _arguments().parse_args(argv)
    effort = QUICK if chosen.quick else FULL
    if chosen.rounds:
        effort = replace(effort, rounds=chosen.rounds)
    home = Path(tempfile.mkdtemp(prefix="vcb"))
    try:
        return _run(home, chosen, effort)
    except BenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(home)


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="What the proxy costs, beside others.")
    parser.add_argument("--quick", action="store_true", help="one short round: shows that it works, not how fast")
    parser.add_argument("--rounds", type=int, help=f"instead of {FULL.rounds}")
    parser.add_argument("--only", type=_words, default=(), help=f"scenarios, of {', '.join(keys())}")
    parser.add_argument("--targets", type=_words, default=(), help=f"of {', '.join(names())}")
    parser.add_argument("--output", type=Path, help="a folder for result.md, result.json and result.png")
    parser.add_argument("--strace", action="store_true", help="count system calls instead")
    return parser


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _run(home: Path, chosen: argparse.Namespace, effort: Effort) -> int:
    cores, files = find_cores(os.sched_getaffinity(0), threads_of), raise_files(_FILES)
    wanted = chosen.targets or (names(slow=False) if chosen.quick else ())
    suites = [scale(suite, effort, files) for suite in choose(chosen.only, wanted)]
    if not suites:
        raise BenchError("nothing is left to measure: see --help for what there is")
    os.sched_setaffinity(0, {cores.load})
    with run_engine(home, cores) as stage, Bench(stage, effort) as bench:
        if chosen.strace:
            print("\n".join(count_calls(bench, suites[0])))
            return 0
        results = [bench.run(suite) for suite in suites]
        head = list(describe(results, cores, effort, bench.noise.share()))
    text = "\n".join((*head, "", *tables(results)))
    print(text)
    if chosen.output:
        write(chosen.output, text, head, results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
