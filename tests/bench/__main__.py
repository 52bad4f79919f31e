"""The benchmark's command: starts everything, measures in interleaved rounds, prints a Markdown table."""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import sys
import tempfile
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import uvloop

from tests.bench.load import BenchError
from tests.bench.measures import FULL, QUICK, SCENARIOS, Effort, Sample, Scenario, measure
from tests.bench.process import Cores, Noise, find_cores
from tests.bench.report import Samples, describe, table
from tests.bench.targets import (
    CIRCUS,
    CIRCUS_KEYS,
    DIRECT,
    NGINX,
    Target,
    nginx_program,
    run_circus,
    run_engine,
    run_nginx,
)

TARGETS = (DIRECT, NGINX, CIRCUS, CIRCUS_KEYS)


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code: 1 where something was answered wrong or did not start."""
    chosen = _arguments().parse_args(argv)
    effort = QUICK if chosen.quick else FULL
    if chosen.rounds:
        effort = replace(effort, rounds=chosen.rounds)
    home = Path(tempfile.mkdtemp(prefix="vcb"))
    try:
        _run(home, effort, chosen.only, chosen.targets)
    except BenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(home)
    return 0


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="What the proxy costs, beside nginx.")
    parser.add_argument("--quick", action="store_true", help="one short round: shows that it works, not how fast")
    parser.add_argument("--rounds", type=int, help=f"instead of {FULL.rounds}")
    keys = ", ".join(scenario.key for scenario in SCENARIOS)
    parser.add_argument("--only", type=_words, default=(), help=f"scenarios, of {keys}; a first word means all of them")
    parser.add_argument("--targets", type=_words, default=(), help=f"of {', '.join(TARGETS)}")
    return parser


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _choose(only: tuple[str, ...]) -> list[Scenario]:
    def is_meant(key: str) -> bool:
        return not only or any(key == word or key.startswith(f"{word}-") for word in only)

    chosen = [scenario for scenario in SCENARIOS if is_meant(scenario.key)]
    if not chosen:
        raise BenchError(f"no scenario is called {' or '.join(only)}")
    return chosen


def _run(home: Path, effort: Effort, only: tuple[str, ...], wanted: tuple[str, ...]) -> None:
    scenarios = _choose(only)
    cores = find_cores()
    os.sched_setaffinity(0, {cores.load})
    with ExitStack() as stack:
        engine, engine_pid = stack.enter_context(run_engine(home, cores))
        targets = _start_targets(stack, home, cores, engine, wanted or TARGETS)
        ours = [os.getpid(), engine_pid, *(pid for target in targets for pid in target.pids)]
        noise = Noise(cores, ours)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            samples = runner.run(_measure_all(targets, scenarios, engine_pid, effort))
        foreign = noise.share()
    print("\n".join(describe(targets, cores, effort, foreign)), end="\n\n")
    print("\n".join(table(targets, samples)))


def _start_targets(stack: ExitStack, home: Path, cores: Cores, engine: int, wanted: tuple[str, ...]) -> list[Target]:
    targets = [Target(DIRECT, engine, (), "")]  # always: latencies are told as what is added to its
    if NGINX in wanted:
        program = nginx_program()
        if program is None:
            print("nginx is not installed: nothing to compare with", file=sys.stderr)
        else:
            targets.append(stack.enter_context(run_nginx(home, cores, engine, program)))
    for name, keys in ((CIRCUS, False), (CIRCUS_KEYS, True)):
        if name in wanted:
            targets.append(stack.enter_context(run_circus(home, cores, engine, keys=keys)))
    return targets


async def _measure_all(targets: list[Target], scenarios: list[Scenario], engine_pid: int, effort: Effort) -> Samples:
    """Round by round, scenario by scenario, target by target, another target first each time."""
    samples: defaultdict[tuple[str, str], list[Sample]] = defaultdict(list)
    for turn in range(effort.rounds):
        print(f"round {turn + 1} of {effort.rounds}", file=sys.stderr)
        for scenario in scenarios:
            first = turn % len(targets)
            for target in targets[first:] + targets[:first]:
                if target.pids or scenario.on_direct:
                    sample = await measure(scenario, target, engine_pid, effort)
                    samples[scenario.name, target.name].append(sample)
    return samples


if __name__ == "__main__":
    sys.exit(main())
