"""Suites, measured: round by round, scenario by scenario, proxy by proxy, another proxy first each time.

Rules: a wrong answer of ours, or of nginx, ends the benchmark. Another proxy that fails is named on stderr and is not
measured at that again: its cell stays empty.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections import defaultdict
from collections.abc import Coroutine, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TypeVar

import uvloop

from tests.bench.crew import run_more_engines
from tests.bench.load import BenchError
from tests.bench.measures import Effort, Sample, Scenario, measure
from tests.bench.process import Noise
from tests.bench.ration import find_groups, rationed
from tests.bench.suites import Suite
from tests.bench.targets import Proxy, Stage, Target

T = TypeVar("T")


@dataclass(frozen=True)
class Result:
    """A suite's samples, one a round, by scenario and proxy; `suite` has only the proxies that were there."""

    suite: Suite
    samples: dict[tuple[str, str], list[Sample]]
    rounds: int


class Bench(AbstractContextManager["Bench"]):
    """Runs suites on one stage."""

    def __init__(self, stage: Stage, effort: Effort) -> None:
        self.stage = stage
        self.effort = effort
        self.noise = Noise(stage.cores)
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self._began = time.monotonic()
        self._told: set[str] = set()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._runner.close()

    def run(self, suite: Suite) -> Result:
        """Every round of it. Raises BenchError where the figures would be worth nothing."""
        proxies = [proxy for proxy in suite.proxies if self._is_there(proxy)]
        asked = self.effort.rounds
        rounds = min(asked * suite.times if asked > 1 else 1, suite.rounds)
        with ExitStack() as stack:
            stage = _fit(stack, self.stage, suite)
            work = _Work(self, suite, rounds, stage)
            if not suite.fresh:
                work.start(stack, proxies)
            for turn in range(rounds):
                seconds = time.monotonic() - self._began
                print(f"{seconds:3.0f} s: {suite.title}, round {turn + 1} of {rounds}", file=sys.stderr)
                work.round(turn, proxies)
        kept = tuple(proxy for proxy in proxies if any(name == proxy.name for _, name in work.samples))
        return Result(replace(suite, proxies=kept), dict(work.samples), rounds)

    def measure(self, scenario: Scenario, target: Target) -> Sample:
        """One measure."""
        ours = {os.getpid(), *self.stage.engine_pids, *target.pids}
        with self.noise.watch(sorted(ours)):
            return self.wait(measure(scenario, target, self.effort))

    def wait(self, work: Coroutine[None, None, T]) -> T:
        """Do it on the event loop of the load."""
        return self._runner.run(work)

    def _is_there(self, proxy: Proxy) -> bool:
        if proxy.lacking and proxy.names[-1] not in self._told:
            self._told.add(proxy.names[-1])
            print(f"{proxy.names[-1]} is not here; to have it: {proxy.lacking}", file=sys.stderr)
        return not proxy.lacking


def _fit(stack: ExitStack, stage: Stage, suite: Suite) -> Stage:
    """The stage as the suite needs it: with more engines, or with all workers on one core."""
    if suite.ration:
        return replace(stage, cores=replace(stage.cores, proxies=(stage.cores.proxy,) * len(suite.proxies)))
    return stack.enter_context(run_more_engines(stage)) if suite.helped else stage


class _Work:
    """One suite while it runs."""

    def __init__(self, bench: Bench, suite: Suite, rounds: int, stage: Stage) -> None:
        self._bench = bench
        self._stage = stage
        self._suite = suite
        self._rounds = rounds
        self._live: dict[str, Target] = {}
        self._failed: set[tuple[str, str]] = set()
        self.samples: defaultdict[tuple[str, str], list[Sample]] = defaultdict(list)

    def start(self, stack: ExitStack, proxies: Sequence[Proxy]) -> None:
        """Start them all, to be measured in turn."""
        for proxy in proxies:
            try:
                target = stack.enter_context(proxy.start(self._stage, proxy))
                if self._suite.ration and (groups := find_groups()):
                    stack.enter_context(rationed(groups, target.pids, self._suite.ration))
                self._live[proxy.name] = target
            except BenchError as error:
                self._forgive(proxy, error)

    def round(self, turn: int, proxies: Sequence[Proxy]) -> None:
        first = turn % len(proxies) if proxies else 0
        for scenario in self._suite.scenarios:
            for proxy in (*proxies[first:], *proxies[:first]):
                key = (scenario.key, proxy.name)
                if turn < proxy.rounds and self._suite.does(proxy, scenario) and key not in self._failed:
                    self._measure(scenario, proxy, key)

    def _measure(self, scenario: Scenario, proxy: Proxy, key: tuple[str, str]) -> None:
        bench = self._bench
        try:
            if not self._suite.fresh:
                if proxy.name in self._live:
                    self.samples[key].append(bench.measure(scenario, self._live[proxy.name]))
                return
            with proxy.start(self._stage, proxy) as target:
                self.samples[key].append(bench.measure(scenario, target))
        except BenchError as error:
            self._forgive(proxy, error)
            self._failed.add(key)
            self.samples.pop(key, None)

    def _forgive(self, proxy: Proxy, error: BenchError) -> None:
        if not proxy.may_fail:
            raise error
        print(f"left out: {error}", file=sys.stderr)
