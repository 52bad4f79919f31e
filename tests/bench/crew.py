"""More load and more engines, where there are cores for them: for workers that together are faster than one of each.

`python -m tests.bench.crew PORT CLIENTS` is one more load: clients that ask for small answers for ever. It says `ready`
when each has had one, and then, for every line that it reads, how many answers there were so far.

Rules: the further engines listen on the port of the first, so that the kernel shares the connections out among them.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import uvloop

from tests.bench.load import Asker, BenchError, Tally, connect
from tests.bench.process import end, start
from tests.bench.targets import Stage, Target, start_engine
from tests.bench.wire import make_request


class Helper:
    """One more load. Raises BenchError where it says nothing."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.pid = process.pid

    def await_ready(self) -> None:
        """Wait until every client has been answered."""
        if self._line() != "ready":
            raise BenchError("a load that was to help does not get answers")

    def count(self) -> int:
        """Answers so far."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        line = self._line()
        if not line.isdigit():
            raise BenchError("a load that helped has ended")
        return int(line)

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


@contextmanager
def run_helpers(target: Target, clients: int) -> Iterator[Sequence[Helper]]:
    """A load on each core that the target has for one, with so many clients each, answered once."""
    with ExitStack() as stack:
        helpers = []
        for core in target.helpers:
            argv = [sys.executable, "-m", "tests.bench.crew", str(target.port), str(clients)]
            process = start(argv, core, log=Path(os.devnull), piped=True)
            stack.callback(end, process)
            helpers.append(Helper(process))
        for helper in helpers:
            helper.await_ready()
        yield helpers


@contextmanager
def run_more_engines(stage: Stage) -> Iterator[Stage]:
    """The stage with further engines, as many as there are cores for."""
    with ExitStack() as stack:
        started = [stack.enter_context(start_engine(stage.home, core, stage.engine)) for _, core in stage.cores.helpers]
        yield replace(stage, engine_pids=(*stage.engine_pids, *(pid for pid, _ in started)))


async def ask(port: int, clients: int) -> None:
    """Ask until nobody reads how many answers there were."""
    tally, reader = Tally(clients, sys.maxsize), asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    requests = [make_request()]
    for client in await connect(port, lambda _: Asker(tally, requests), clients):
        client.start()
    await tally.all_begun.wait()
    print("ready", flush=True)
    while await reader.readline():
        if tally.failed.done():
            tally.failed.result()
        print(tally.events, flush=True)


def main() -> None:
    port, clients = map(int, sys.argv[1:])
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(ask(port, clients))


if __name__ == "__main__":
    main()
