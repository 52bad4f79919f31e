"""Where and how it was measured: the lines above the tables."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

from tests.bench.measures import Effort
from tests.bench.process import Cores
from tests.bench.rivals import FORWARDER
from tests.bench.run import Result
from vllm_circus.proxy.server import execution


def describe(results: Sequence[Result], cores: Cores, effort: Effort, foreign: float) -> Iterator[str]:
    """`foreign` is the share of our cores that went to other processes."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("uvloop", "httptools", "tornado"))
    ours = f"vllm-circus {version('vllm-circus')} ({execution()})"
    proxies = (proxy for result in results for proxy in result.suite.proxies if proxy.version)
    others = dict.fromkeys(f", {proxy.names[-1]} {proxy.version}" for proxy in proxies)
    python = f"{platform.python_implementation()} {platform.python_version()}"
    yield f"- Machine: {_processor()}, {os.cpu_count()} cores, {_memory():.0f} GiB, Linux {platform.release()}"
    yield f"- Software: {python}, {ours}, {packages}{''.join(others)}"
    yield f"- Cores: {_placed(cores)}"
    judged = "quiet" if foreign < 0.05 else "NOISY: do not compare these figures with others"
    yield f"- Other processes took {foreign:.0%} of these cores meanwhile: {judged}"
    yield (
        f"- Medians (lowest to highest) of {effort.rounds} interleaved rounds, fewer for slower proxies, windows of"
        f" {effort.seconds:g} s, two or three times that for paced streams; answers of 200 chunks, one each 20 ms, all"
        " streams in step; crowds are of 10 chunks, one a second, and begin all at once"
    )
    yield (
        "- vllm-circus: routing, request id, counters and metrics on; -full: keys and CORS too; request log off. nginx"
        f" and haproxy: none of them. {FORWARDER} stands in for the production-stack router, which no package index"
        " has: the same kind of program with less to do"
    )


def _placed(cores: Cores) -> str:
    if cores.load == cores.proxy:
        return f"one alone ({cores.proxy}) for proxy, load and mock engine: latencies say little"
    load = f"load on {cores.load}, mock engine on {cores.engine}"
    if cores.load == cores.engine:
        load = f"load and mock engine on {cores.load}"
    second = cores.proxies[1]
    if second in (cores.load, cores.engine):
        shared = f"a second worker shares core {second} with these, unless each has a part of one core's time"
        return f"the proxy on {cores.proxy}, {load}; {shared}"
    text = f"the proxy on {cores.proxy}, further workers on {', '.join(map(str, cores.proxies[1:]))}, {load}"
    return f"{text}; for several workers {len(cores.helpers)} more of each" if cores.helpers else text


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _memory() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
