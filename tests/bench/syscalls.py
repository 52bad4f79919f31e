"""`--strace`: how many system calls a request and a chunk cost each proxy, for that is what bounds its speed.

strace attaches to the proxy while clients ask. It slows the proxy down, so no times are told, and with many clients
more of their work falls together than without it: the figures of one client are those to compare.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

from tests.bench.load import BenchError, Tally, connect
from tests.bench.measures import Scenario
from tests.bench.run import Bench
from tests.bench.suites import Suite
from tests.bench.targets import Target
from tests.bench.wire import StreamOrder

_LINE = re.compile(r"^ *[\d.]+ +[\d.]+ +\d+ +(\d+) +(?:\d+ +)?(\w+)$", re.MULTILINE)
_ORDER = StreamOrder(chunks=1000, pace=5)
#: What is asked, what is counted, and how much of it.
_LOADS = (
    (Scenario("", "", clients=1), "small request", 2000),
    (Scenario("", "", clients=32), "small request", 4000),
    (Scenario("", "", clients=1, size=64 << 10), "64 KB request", 500),
    (Scenario("", "", clients=1, order=_ORDER), "chunk", 200),
    (Scenario("", "", clients=32, order=_ORDER), "chunk", 6400),
)
_PATIENCE = 60.0


def count_calls(bench: Bench, suite: Suite) -> Iterator[str]:
    """The lines of the table. Raises BenchError where strace is missing or may not look at processes."""
    if shutil.which("strace") is None:
        raise BenchError("strace is not installed: apt install strace")
    yield "| a | clients | of | system calls | which |"
    yield "| --- | ---: | --- | ---: | --- |"
    for proxy in suite.proxies:
        if not proxy.lacking and not proxy.slow:
            with proxy.start(bench.stage, proxy) as target:
                if target.pids:
                    yield from _lines(bench, target)


def _lines(bench: Bench, target: Target) -> Iterator[str]:
    for scenario, unit, wanted in _LOADS:
        summary = bench.stage.home / "strace"
        events = bench.wait(_ask(target, scenario, wanted, summary))
        calls = {name: count / events for name, count in read_calls(summary.read_text()).items()}
        which = ", ".join(f"{name} {count:.2f}" for name, count in calls.items() if count >= 0.005)
        yield f"| {unit} | {scenario.clients} | {target.name} | {sum(calls.values()):.2f} | {which} |"


def read_calls(summary: str) -> dict[str, int]:
    """Calls by name, the most frequent first, from what `strace -c` writes."""
    found = [(name, int(count)) for count, name in _LINE.findall(summary) if name != "total"]
    return dict(sorted(found, key=lambda pair: -pair[1]))


async def _ask(target: Target, scenario: Scenario, wanted: int, summary: Path) -> int:
    """How many events came while strace watched: at least `wanted`."""
    tally = Tally(scenario.clients, wanted)
    clients = await connect(target.port, scenario.maker(tally, target), scenario.clients)
    try:
        for client in clients:
            client.start()
        work = asyncio.ensure_future(_watch(target.pids, tally, wanted, summary))
        async with asyncio.timeout(_PATIENCE):
            await asyncio.wait((work, tally.failed), return_when=asyncio.FIRST_COMPLETED)
        if tally.failed.done():
            tally.failed.result()
        return work.result()
    except TimeoutError:
        raise BenchError(f"{target.name}: nothing moves while strace watches") from None
    finally:
        tally.failed.cancel()
        for client in clients:
            client.close()


async def _watch(pids: tuple[int, ...], tally: Tally, wanted: int, summary: Path) -> int:
    await tally.all_begun.wait()
    argv = ["strace", "-c", "-f", "-o", str(summary), *(word for pid in pids for word in ("-p", str(pid)))]
    strace = await asyncio.create_subprocess_exec(*argv, stderr=asyncio.subprocess.PIPE)
    try:
        said = await strace.stderr.readline() if strace.stderr is not None else b""
        if b"attached" not in said:
            raise BenchError(f"strace says {said.decode(errors='replace').strip()!r}")
        before = tally.events
        await tally.count_to(before + wanted)
        events = tally.events - before
    finally:
        if strace.returncode is None:
            strace.send_signal(signal.SIGINT)
        await strace.wait()
    return events
