"""What a row of the faults stands on: a set of its own in a home of its own, and a notebook for what is found.

Rules: a row measures by the steady clock, from outside, as a client or an operator would. Whatever it did, nothing of
its set is left afterwards.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import yaml

from tests.chaos.clients import answers, states
from tests.chaos.scene import free_ports
from tests.e2e.conftest import Circus, await_that
from tests.e2e.traffic import Traffic
from vllm_circus.logline import LogLine, decode
from vllm_circus.paths import Instance, find_instance
from vllm_circus.supervise.lock import lock_holder
from vllm_circus.supervise.proc import every_process, read_process
from vllm_circus.supervise.sweep import end_leftovers

#: Requests a second that go to the model that has nothing to do with a fault.
RATE = 5.0
_POLL = 0.05
_T = TypeVar("_T")


class NotTried(Exception):
    """The row needs something that this machine does not have; the text says what."""


@dataclass
class Notes:
    """What a row finds, in words, and what of it does not hold."""

    figures: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def time(self, what: str, seconds: float | None, limit: float) -> None:
        """Something that has to happen within `limit` seconds; None is never."""
        self.say(f"{what} {'never' if seconds is None else f'after {seconds:.1f} s'}")
        if seconds is None or seconds > limit:
            self.faults.append(f"{what}: owed within {limit:g} s")

    def that(self, holds: object, what: str) -> None:
        """Something that has to be so, said only where it is not."""
        if not holds:
            self.faults.append(what)

    def say(self, figure: str) -> None:
        """Something worth reading."""
        self.figures.append(figure)

    def whole(self, traffic: Traffic, of: str) -> None:
        """Requests that all have to be answered whole."""
        asked, whole = len(traffic.done), sum(one.whole for one in traffic.done)
        self.say(f"{asked - whole} of {asked} requests to {of} failed")
        self.that(asked and whole == asked, f"failed: {dict(traffic.summary())}")


@dataclass
class Ground(Circus):
    """A running set; `extra` are environment variables of it and of every command."""

    extra: Mapping[str, str] = field(default_factory=dict)
    port: int = 0

    @property
    def environ(self) -> dict[str, str]:
        """What every process of it gets."""
        return {**super().environ, **self.extra}

    @property
    def instance(self) -> Instance:
        """Its folders."""
        return find_instance(self.name, self.environ)

    @property
    def url(self) -> str:
        """Where clients come to."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def file(self) -> Path:
        """Its models file."""
        return self.home / "models.yaml"

    def write(self, models: list[dict[str, Any]]) -> frozenset[str]:
        """Write the models file; returns the engines' ports."""
        self.port, *ports = free_ports(1 + len(models))
        document = {
            "proxy": {"host": "127.0.0.1", "port": self.port},
            "defaults": {"engine": "simulator", "drain_timeout": 2, "stop_timeout": 3},
            "models": [
                {"model": f"sim/{model['name']}", "port": port} | model
                for model, port in zip(models, ports, strict=True)
            ],
        }
        self.file.write_text(yaml.safe_dump(document))
        return frozenset(map(str, ports))

    def up(self, *awaited: str) -> None:
        """Start it, and wait until these models answer."""
        self("up", str(self.file), "-d")
        for model in awaited:
            await_that(partial(answers, self.port, model))

    def traffic(self, model: str) -> Traffic:
        """Streams of a model, at the usual rate."""
        return Traffic(self.url, model, RATE)

    def pid(self, model: str) -> int:
        """The model's API server, as circusd has it; 0 where there is none."""
        circusd = lock_holder(self.instance)
        for process in every_process():
            if process.parent == circusd and process.alive and f"sim/{model}\0" in words(process.pid):
                return process.pid
        return 0

    def plugin(self, name: str) -> int:
        """A plugin's process; 0 where there is none."""
        circusd = lock_holder(self.instance)
        for process in every_process():
            if process.parent == circusd and process.alive and f"plugin:{name}" in words(process.pid):
                return process.pid
        return 0

    def is_back(self, model: str, old: int) -> bool:
        """Whether the model answers, by another process than `old`."""
        return states(self.port).get(model) == "ready" and self.pid(model) not in {0, old} and answers(self.port, model)

    def log(self, part: str) -> list[LogLine]:
        """The lines of a log file, as far as they are ours."""
        try:
            text = self.instance.log(part).read_text(errors="replace")
        except FileNotFoundError:
            return []
        return [line for line in map(decode, text.splitlines()) if line]

    def put_away(self) -> None:
        """End everything of it, what was stopped too."""
        self.end()
        if holder := lock_holder(self.instance):
            os.kill(holder, signal.SIGKILL)
            await_that(lambda: lock_holder(self.instance) is None)
        end_leftovers(self.instance)


@contextmanager
def ground(models: list[dict[str, Any]], extra: Mapping[str, str] | None = None) -> Iterator[Ground]:
    """A set of these models, written and not started yet; nothing of it is left after the block."""
    home = Path(tempfile.mkdtemp(prefix="vcf", dir="/tmp"))
    place = Ground(home, extra=extra or {})
    place.write(models)
    try:
        yield place
    finally:
        place.put_away()
        shutil.rmtree(home, ignore_errors=True)


def words(pid: int) -> str:
    """The command line of a process, each word with a NUL at its end; nothing where it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    except OSError:
        return ""


def session_of(leader: int) -> frozenset[int]:
    """Everybody in a session who lives."""
    return frozenset(process.pid for process in every_process() if process.session == leader and process.alive)


def lives(pid: int) -> bool:
    """Whether the process is there and no zombie."""
    process = read_process(pid)
    return process is not None and process.alive


def seconds_until(what: Callable[[], object], within: float) -> float | None:
    """How long it takes until `what` is true; None where that is longer than `within`."""
    began = time.monotonic()
    while not what():
        if time.monotonic() - began > within:
            return None
        time.sleep(_POLL)
    return time.monotonic() - began


def ask_on(traffic: Traffic, number: int) -> None:
    """Until so many more requests were answered."""
    enough = len(traffic.done) + number
    await_that(lambda: len(traffic.done) >= enough)


def awaited(what: Callable[[], _T | None], within: float = 30.0) -> _T:
    """What `what` gives once it is true. Raises AssertionError where that does not come."""
    deadline = time.monotonic() + within
    while not (found := what()):
        assert time.monotonic() < deadline, f"not within {within:g} s"
        time.sleep(_POLL)
    return found


def post(port: int, path: str, **values: object) -> None:
    """Tell a simulated engine something."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", json.dumps(values).encode(), {"Content-Type": "application/json"}
    )
    urllib.request.urlopen(request, timeout=10).close()
