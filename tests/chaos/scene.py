"""A cell, run: a real set in a home of its own is brought into the situation, hit, watched until it is back, ended."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from tests.chaos.cells import LONG_LOAD, ORPHANS, Cell, Fault, Found, Situation, Target
from tests.chaos.census import Census, orphans_of, words_of
from tests.chaos.clients import Streams, answers, states
from tests.e2e.conftest import Circus, await_that
from vllm_circus.paths import Instance, find_instance
from vllm_circus.supervise.lock import lock_holder
from vllm_circus.supervise.proc import every_process
from vllm_circus.supervise.sweep import end_leftovers, find_leftovers

_MODELS = ("alpha", "beta")
_POLL = 0.05
#: Seconds over the limit after which nobody waits any more.
_GIVE_UP = 5.0
#: Seconds that streams get to end by themselves; a whole one takes half of that.
_STREAMS_END = 10.0


class Scene:
    """One set of two simulated models, and what is known of it."""

    def __init__(self, home: Path, load: float) -> None:
        self.circus = Circus(home)
        self.port, *ports = free_ports(3)
        self.ports = frozenset(map(str, ports))
        self.file = home / "models.yaml"
        self.file.write_text(
            f"""\
proxy: {{host: 127.0.0.1, port: {self.port}}}
defaults:
  engine: simulator
  drain_timeout: 2
  stop_timeout: 3
models:
  - {{name: alpha, model: sim/alpha, port: {ports[0]}, args: {{sim-token-seconds: 0.03}}}}
  - {{name: beta, model: sim/beta, port: {ports[1]}, args: {{sim-load-seconds: {load}}}}}
"""
        )

    @property
    def instance(self) -> Instance:
        """Its folders."""
        return find_instance(self.circus.name, self.circus.environ)

    def bring_up(self, situation: Situation) -> Streams | None:
        """Start it and bring it into a situation; the streams, where some run."""
        loading = situation is Situation.LOADING
        self.circus("up", str(self.file), "-d", *(() if loading else ("--wait",)))
        await_that(lambda: answers(self.port, "alpha"))
        if loading:
            await_that(lambda: self._find(self._server("beta"), b"VLLM::EngineCore"))
            await_that(lambda: states(self.port).get("beta") == "loading", LONG_LOAD)
            return None
        await_that(lambda: answers(self.port, "beta"))
        if situation is Situation.IDLE:
            return None
        streams = Streams(self.port, "alpha")
        streams.wait_begun()
        return streams

    def pid_of(self, cell: Cell) -> int:
        """Who is to be hit."""
        circusd = lock_holder(self.instance)
        assert circusd is not None
        if cell.target is Target.CIRCUSD:
            return circusd
        if cell.hits_engine:
            server = self._server(cell.victim)
            return server if cell.target is Target.SERVER else self._find(server, b"VLLM::EngineCore")
        title = {Target.WORKER: b"vllm_circus.proxy", Target.HEALTH: b"plugin:health", Target.STATS: b"plugin:stats"}
        return self._find(circusd, title[cell.target])

    def _server(self, model: str) -> int:
        circusd = lock_holder(self.instance)
        return self._find(circusd, f"sim/{model}".encode()) if circusd else 0

    def _find(self, parent: int, title: bytes) -> int:
        """The living child with this in its command line; 0 where there is none."""
        for process in every_process():
            if process.parent == parent and process.alive and title in words_of(process.pid):
                return process.pid
        return 0

    def await_back(self, cell: Cell) -> Found:
        """Until both models answer, or for as long as anybody would wait."""
        began = time.monotonic()
        out: float | None = None
        told: dict[str, str] = {}
        while (took := time.monotonic() - began) < cell.limit + _GIVE_UP:
            told = states(self.port)
            if out is None and told.get(cell.victim, "ready") != "ready":
                out = took
            was_out = out is not None or not cell.must_leave_routes
            if was_out and all(answers(self.port, model) for model in _MODELS):
                return Found(time.monotonic() - began, out)
            if not was_out:  # a request that finds it hung is what tells that it hangs
                answers(self.port, cell.victim)
            time.sleep(_POLL)
        return Found(None, out)

    def end(self) -> int:
        """Take everything down, stopped ones too; how many were left by `down`."""
        self.circus.end()
        left = len(find_leftovers(self.instance))
        if holder := lock_holder(self.instance):
            os.kill(holder, signal.SIGKILL)
            await_that(lambda: lock_holder(self.instance) is None)
        end_leftovers(self.instance)
        return left


def run_cell(cell: Cell, settle: float) -> Found:
    """Run one cell; `settle` is for how many seconds it is looked at after service is back."""
    with _scene(cell.load) as scene, ExitStack() as stack:
        streams = scene.bring_up(cell.situation)
        census = stack.enter_context(Census(scene.ports))
        pid = scene.pid_of(cell)
        assert pid, f"no {cell.target} to be hit"
        began = time.monotonic()
        os.kill(pid, cell.fault.signal)
        if cell.target is Target.CIRCUSD and cell.fault is Fault.KILL:
            scene.circus("up", str(scene.file), "-d")
        started = time.monotonic() - began
        found = scene.await_back(cell)
        back = None if found.back is None else found.back + started
        if streams:
            streams.wait_ended(_STREAMS_END)
        time.sleep(settle)  # nothing is to happen: there is no event for that
        orphans = _wait_for_none(lambda: len(orphans_of(scene.instance)), ORPHANS)
        left = scene.end()
        if streams:
            streams.wait_ended(_STREAMS_END)
        whole, cut, false = streams.counts() if streams else (0, 0, 0)
    return replace(
        found, back=back, orphans=orphans + left, doubles=len(census.doubles), whole=whole, cut=cut, false=false
    )


def _wait_for_none(count: Callable[[], int], within: float) -> int:
    deadline = time.monotonic() + within
    while (number := count()) and time.monotonic() < deadline:
        time.sleep(_POLL)
    return number


@contextmanager
def _scene(load: float) -> Iterator[Scene]:
    home = Path(tempfile.mkdtemp(prefix="vcc", dir="/tmp"))
    scene = Scene(home, load)
    try:
        yield scene
    finally:
        scene.end()
        shutil.rmtree(home, ignore_errors=True)


def free_ports(number: int) -> tuple[int, ...]:
    """Loopback ports that nobody listens on, all different."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(number)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return tuple(probe.getsockname()[1] for probe in probes)
