"""What a screen is fed with: the words of the bus, the log lines, the time, and whether the set still runs.

The one place of the screens that reads files and sockets. A set that ends or is reloaded ends nothing here: the
screen is told. Another set that takes its place is followed as well.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from vllm_circus.bus.subscribe import follow
from vllm_circus.errors import NotRunning
from vllm_circus.paths import DEFAULT_INSTANCE, Instance
from vllm_circus.screens.events import Event, Gone, Logged, Planned, Tick
from vllm_circus.supervise.lock import lock_holder
from vllm_circus.view.logs import Wanted, merge
from vllm_circus.view.outline import Outline, read_outline
from vllm_circus.view.starting import start_words
from vllm_circus.view.tail import Followers, last_entries, mark_end

#: Seconds between two looks at the logs, and at most between two pictures that nobody asked for.
EVERY = 0.25
_LOOK_EVERY = 1.0
#: Lines of each log that are there from the beginning.
_RECENT = 500
_MOST = 200  # reads of the logs in one turn: a flood leaves room for keys

_WANTED = Wanted(brief=True)  # the states stand above the log


def need_set(instance: Instance) -> Planned:
    """The running set. Raises NotRunning, with a hint, where none runs."""
    planned = read_set(instance)
    if planned is None:
        name = "vllm-circus" if instance.name == DEFAULT_INSTANCE else f"instance {instance.name!r}"
        raise NotRunning(f"{name} is not running", hint=f"start it with {start_words(instance)}")
    return planned


def read_set(instance: Instance) -> Planned | None:
    """The running set as it is planned; None where none runs or its plan cannot be read yet."""
    daemon = lock_holder(instance)
    outline = _outline(instance.plan) if daemon is not None else None
    return Planned(outline, daemon, _began(instance.pidfile)) if daemon is not None and outline else None


def _outline(plan: Path) -> Outline | None:
    try:
        return read_outline(plan.read_bytes())
    except (OSError, ValueError):
        return None


def _began(pidfile: Path) -> float | None:
    try:
        return pidfile.stat().st_mtime
    except OSError:
        return None


class Feed:
    """Events of one instance. `parts` names the logs that are wanted of a set; lines before `since` are left out."""

    def __init__(
        self,
        instance: Instance,
        planned: Planned,
        parts: Callable[[Outline], Collection[str]],
        since: datetime | None = None,
    ) -> None:
        self._instance = instance
        self._planned: Planned | None = planned
        self._parts = parts
        self._wanted = {part: instance.log(part) for part in parts(planned.outline)}
        marks = {part: mark_end(log) for part, log in self._wanted.items()}
        wanted = replace(_WANTED, since=since)
        recent = [last_entries(part, log, _RECENT, wanted, marks[part]) for part, log in self._wanted.items()]
        self._recent = tuple(merge(recent))
        self._followers = Followers(self._wanted, marks)
        self._seen = self._stamp()
        self._look_at = self._read_at = 0.0

    def close(self) -> None:
        """Let go of the logs."""
        self._followers.close()

    def first(self) -> tuple[Event, ...]:
        """What is known at once: the plan, the time, and the last lines of the logs."""
        known = (self._planned,) if self._planned else ()
        return (Tick(time.time()), *known, Logged(self._recent))

    def events(self, also: Collection[int]) -> Iterator[list[Event]]:
        """Whatever happens, for ever: at least every `EVERY` seconds, and as soon as a descriptor can be read."""
        for message in follow(self._instance, EVERY, also):
            events: list[Event] = [] if message is None else [message]
            now = time.monotonic()
            if now >= self._look_at:
                self._look_at = now + _LOOK_EVERY
                events += self._look()
            if now >= self._read_at:
                self._read_at = now + EVERY / 2
                events += self._read()
            yield events

    def _look(self) -> Iterator[Event]:
        """The time, and what became of the set."""
        yield Tick(time.time())
        if self._planned is not None and lock_holder(self._instance) is None:
            self._planned, self._seen = None, None
            yield Gone()
            return
        stamp = self._stamp()
        if stamp is None or (self._planned is not None and stamp == self._seen):
            return
        planned = read_set(self._instance)
        if planned is not None and planned != self._planned:
            self._planned, self._seen = planned, stamp
            self._followers.add({part: self._instance.log(part) for part in self._parts(planned.outline)})
            yield planned

    def _stamp(self) -> tuple[int, int] | None:
        try:
            status = self._instance.plan.stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns

    def _read(self) -> Iterator[Event]:
        for _ in range(_MOST):
            found = self._followers.poll()
            if entries := tuple(filter(_WANTED.matches, found)):
                yield Logged(entries)
            if not found:
                return
