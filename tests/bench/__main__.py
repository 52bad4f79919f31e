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
from pathlib import Path

import uvloop

from tests.bench.load import BenchError
from tests.bench.measures import FULL, QUICK, SCENARIOS, Effort, Sample, measure
from tests.bench.process import Cores, Noise, find_cores
from tests.bench.report import Samples, describe, table
from tests.bench.targets import DIRECT, Target, nginx_program, run_circus, run_engine, run_nginx


def main() -> int:
    """Returns the exit code: 1 where something was answered wrong or did not start."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="What the proxy costs, beside nginx.")
    parser.add_argument("--quick", action="store_true", help="one short round: shows that it works, not how fast")
    effort = QUICK if parser.parse_args().quick else FULL
    home = Path(tempfile.mkdtemp(prefix="vcb"))
    try:
        _run(home, effort)
    except BenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(home)
    return 0


def _run(home: Path, effort: Effort) -> None:
    cores = find_cores()
    os.sched_setaffinity(0, {cores.load})
    with ExitStack() as stack:
        engine, engine_pid = stack.enter_context(run_engine(home, cores))
        targets = _start_targets(stack, home, cores, engine)
        ours = [os.getpid(), engine_pid, *(pid for target in targets for pid in target.pids)]
        noise = Noise(cores, ours)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            samples = runner.run(_measure_all(targets, engine_pid, effort))
        foreign = noise.share()
    print("\n".join(describe(targets, cores, effort, foreign)), end="\n\n")
    print("\n".join(table(targets, samples)))


def _start_targets(stack: ExitStack, home: Path, cores: Cores, engine: int) -> list[Target]:
    targets = [Target(DIRECT, engine, (), "")]
    program = nginx_program()
    if program is None:
        print("nginx is not installed: nothing to compare with", file=sys.stderr)
    else:
        targets.append(stack.enter_context(run_nginx(home, cores, engine, program)))
    targets += [stack.enter_context(run_circus(home, cores, engine, keys=keys)) for keys in (False, True)]
    return targets


async def _measure_all(targets: list[Target], engine_pid: int, effort: Effort) -> Samples:
    """Round by round, scenario by scenario, target by target, another target first each time."""
    samples: defaultdict[tuple[str, str], list[Sample]] = defaultdict(list)
    for turn in range(effort.rounds):
        print(f"round {turn + 1} of {effort.rounds}", file=sys.stderr)
        for scenario in SCENARIOS:
            first = turn % len(targets)
            for target in targets[first:] + targets[:first]:
                if target.pids or scenario.on_direct:
                    sample = await measure(scenario, target, engine_pid, effort)
                    samples[scenario.name, target.name].append(sample)
    return samples


if __name__ == "__main__":
    sys.exit(main())
