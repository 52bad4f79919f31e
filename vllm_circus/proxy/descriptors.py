"""The files that a worker may have open: who has them, and who gives one up where there are too few.

Rules:
- What is counted is what is open: a file for each client, one for each connection to an engine, in use or idle, and two
  for one to our own pages, both of whose ends are here. Some more are set aside for all else.
- Clients are let in only while that leaves some files for engines. So an idle one costs a file, and not the second one
  that it may come to need; but who is new is about to ask, and has both set aside for a moment.
- Where no file is left for a connection to an engine, one is made free: first the connection that has been idle for
  longest, then the client that has been. Nobody is closed who is owed an answer or of whose request a byte is here, and
  who has just come is left a moment for its first.
- Nothing of this is kept up to date request by request: who is idle, and since when, is found out when it matters.
"""

from __future__ import annotations

import logging
import resource
import sys
from collections import deque
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from operator import itemgetter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vllm_circus.proxy.backend import Backend
    from vllm_circus.proxy.downstream import Downstream

log = logging.getLogger(__name__)

#: Files that are not connections: listening sockets, the bus, logs, libraries.
RESERVED = 64
#: Files that clients leave to engines: this part of all, and so many at the most.
_HEADROOM_PART = 8
_MOST_HEADROOM = 256
#: The fewest with which anything is served: a client, and one of our own pages.
_FEWEST = 4
#: Seconds between two log lines.
_SILENCE = 10.0


class Descriptors:
    """Counts the files of a worker's connections, of which `most` may be open.

    Attributes:
        headroom: files that new clients leave to engines.
        engines: files of connections to engines.
        arriving: clients that are accepted and not among the connections yet; the gate's own.
        backends: those whose idle connections may be closed.
        on_change: called when a file was taken or given back, when a client came or left, and now and then.
    """

    __slots__ = (
        "_clock",
        "_connections",
        "_idle",
        "_newcomers",
        "_said",
        "arriving",
        "backends",
        "engines",
        "headroom",
        "most",
        "on_change",
    )

    def __init__(self, connections: set[Downstream], *, clock: Callable[[], float], most: int = sys.maxsize) -> None:
        self.most = most
        self.headroom = headroom(most)
        self.engines = 0
        self.arriving: Collection[object] = ()
        self.backends: Sequence[Backend] = ()
        self.on_change: Callable[[], None] = _nobody
        self._clock = clock
        self._connections = connections
        self._idle: list[tuple[float, Downstream]] = []  # who has been idle for longest comes last
        self._newcomers: deque[Downstream] = deque()  # in the order in which they came
        self._said = -_SILENCE

    def __repr__(self) -> str:
        return f"<Descriptors {self.used} of {self.most}, {self.engines} for engines>"

    def take_limit(self, most: int) -> None:
        """So many may be open from now on."""
        self.most, self.headroom = most, headroom(most)
        self.on_change()

    @property
    def used(self) -> int:
        """Files that are open for connections."""
        return len(self._connections) + len(self.arriving) + self.engines

    def admits(self, part: float = 1.0) -> bool:
        """Whether one client more is let in; `part` is that of the usual limit."""
        now, newcomers = self._clock(), self._newcomers
        while newcomers and not newcomers[0].is_new(now):
            newcomers.popleft()
        return self.used + len(self.arriving) + len(newcomers) < (self.most - self.headroom) * part

    def came(self, down: Downstream) -> None:
        """A client is among the connections now."""
        self._newcomers.append(down)
        self.on_change()

    def take(self, number: int) -> bool:
        """Count so many more for engines; False where they do not fit and nothing can be closed for them.

        What is closed for them is gone after the present turn of the loop.
        """
        while self.used + number > self.most:
            if not (self._close_pooled() or self._close_client()):
                return False
        self.engines += number
        self.on_change()
        return True

    def give(self, number: int) -> None:
        """So many are closed."""
        self.engines -= number
        self.on_change()

    def look_again(self) -> None:
        """Called a few times a second: who was idle may be so no longer, and who was new."""
        self._idle = []
        self.on_change()

    def ran_out(self, error: OSError) -> None:
        """The kernel gave no file although some should be left: something else has them."""
        self._say("no connection to an engine can be opened: %s", error.strerror)

    def _close_pooled(self) -> bool:
        """Close the connection to an engine that has been idle for longest."""
        pools = [backend for backend in self.backends if backend.idle_since is not None]
        if pools:
            min(pools, key=_idle_since).close_oldest()
        return bool(pools)

    def _close_client(self) -> bool:
        """Close the client that has been idle for longest."""
        if not self._close_last():  # those that have been idle since the list was made were not idle for as long
            now = self._clock()
            found = [(since, down) for down in self._connections if (since := down.idle_since(now)) is not None]
            self._idle = sorted(found, key=itemgetter(0), reverse=True)
            if not self._close_last():
                return False
        self._say("all %d files for connections are in use: clients that are idle are closed", self.most)
        return True

    def _close_last(self) -> bool:
        while self._idle:
            since, down = self._idle.pop()
            if down.idle_since(self._clock()) == since and down.give_way():
                self._connections.discard(down)
                return True
        return False

    def _say(self, text: str, value: object) -> None:
        now = self._clock()
        if now - self._said >= _SILENCE:
            self._said = now
            log.warning(text, value)


def headroom(most: int) -> int:
    """How many of so many files new clients leave to engines."""
    return min(_MOST_HEADROOM, most // _HEADROOM_PART) or 1


def allowed_files(clients: int) -> int:
    """How many files this process may have open for connections.

    nofile is raised, as far as the hard limit lets it, to what so many clients may need: a connection to an engine for
    each. Says so where they would not even fit while they are idle.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2 * clients + RESERVED
    if soft != resource.RLIM_INFINITY and soft < needed:
        limit = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
            soft = limit
    if soft == resource.RLIM_INFINITY:
        return sys.maxsize
    most = max(_FEWEST, soft - RESERVED)
    room = most - headroom(most)
    if room < clients:
        log.warning("only %d files may be open: connections are limited to %d instead of %d", soft, room, clients)
    return most


def _idle_since(backend: Backend) -> float:
    return backend.idle_since or 0.0


def _nobody() -> None:
    """Who waits for no change."""
