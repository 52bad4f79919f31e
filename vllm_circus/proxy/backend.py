"""One backend: where it is, its idle connections, and whether it was just seen to be down.

Rules: every backend has its own pool, so none waits for another's. A pooled connection is kept for less time than
any engine keeps it, and is watched while it is idle; so a request rarely meets one that is just being closed. Who
cannot be connected to is left alone for a moment, without waiting for a probe. Who loses a single connection is not:
the next request finds out by itself, on a connection of its own.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from vllm_circus.config.models import Ejection
from vllm_circus.enginekeys import read_engine_key
from vllm_circus.plan.types import Endpoint
from vllm_circus.proxy.balance import Ejector, seed_of
from vllm_circus.proxy.counters import ModelCounter
from vllm_circus.proxy.errors import out_of_files
from vllm_circus.proxy.poller import Poller
from vllm_circus.proxy.sockets import connect
from vllm_circus.proxy.upstream import Upstream

if TYPE_CHECKING:
    from vllm_circus.proxy.descriptors import Descriptors
    from vllm_circus.proxy.request import Request

log = logging.getLogger(__name__)

#: Seconds that an idle connection is kept: uvicorn closes after 5, and ours are told to keep longer.
IDLE_SECONDS: Final = 4.0
#: Seconds without another try after a backend could not be reached; a snapshot that calls it ready ends them early.
DOWN_SECONDS: Final = 1.0
#: Idle connections kept for one backend.
MOST_IDLE: Final = 256
#: Connections that are being opened to it at a time.
_MOST_OPENING: Final = 32
_OUT_OF_FILES: Final = frozenset({errno.EMFILE, errno.ENFILE})


class _Opening:
    """A connection that a request wants: it waits for its turn, or is being opened. `deadline` is by the clock."""

    __slots__ = ("_backend", "deadline", "request", "task")

    def __init__(self, backend: Backend, request: Request, deadline: float) -> None:
        self._backend = backend
        self.request = request
        self.deadline = deadline
        self.task: asyncio.Task[None] | None = None

    def give_up(self) -> None:
        """Nobody wants it any more."""
        if self.task is not None:
            self.task.cancel()
        else:
            self._backend.unwanted(self)


class Backend:
    """An engine, or the proxy's own control pages.

    Attributes:
        endpoint: where it listens.
        counter: what happens to its requests; None for the control pages.
        is_ready: its engine is ready, by the states that were told; who was never told of is.
        names: those that its engine answers to, where they are not all that the plan has; else None.
        ejector, seed: see balance.
    """

    __slots__ = (
        "_clock",
        "_connect_timeout",
        "_descriptors",
        "_down_until",
        "_files",
        "_idle",
        "_key_file",
        "_lines",
        "_loop",
        "_most_idle",
        "_open",
        "_poller",
        "_tasks",
        "_waiting",
        "counter",
        "ejector",
        "endpoint",
        "is_control",
        "is_ready",
        "name",
        "names",
        "seed",
    )

    def __init__(
        self,
        name: str,
        endpoint: Endpoint,
        *,
        poller: Poller,
        clock: Callable[[], float],
        connect_timeout: float,
        descriptors: Descriptors,
        counter: ModelCounter | None = None,
        ejection: Ejection | None = None,
        key_file: Path | None = None,
    ) -> None:
        self.name = name
        self.counter = counter
        self.is_control = counter is None
        self.is_ready = True
        self.names: frozenset[str] | None = None
        self.ejector = Ejector(ejection or Ejection())
        self.seed = seed_of(name)
        self.endpoint = endpoint
        self._poller = poller
        self._loop = poller.loop
        self._clock = clock
        self._connect_timeout = connect_timeout
        self._descriptors = descriptors
        self._files = 2 if self.is_control else 1  # both ends of a connection to our own pages are here
        self._key_file = key_file
        self._lines: bytes | None = None
        self._idle: list[Upstream] = []
        self._most_idle = MOST_IDLE
        self._open: set[Upstream] = set()
        self._down_until = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting: dict[_Opening, None] = {}  # in the order of their deadlines

    def __repr__(self) -> str:
        down = ", down" if self.is_down(self._clock()) else ""
        return f"<Backend {self.name} at {self.endpoint}, {len(self._idle)} idle{down}>"

    @property
    def load(self) -> int:
        """Requests in flight there, of this worker."""
        return self.counter.in_flight if self.counter is not None else 0

    @property
    def lines(self) -> bytes:
        """The header lines that every request to it has: Host, and the engine's own key, read when first needed."""
        return self._lines if self._lines is not None else self._make_lines()

    @property
    def place(self) -> tuple[Endpoint, Path | None]:
        """Where it is asked, and with which key: another place is another engine."""
        return self.endpoint, self._key_file

    def settle(self, ejection: Ejection, *, connect_timeout: float) -> None:
        """Go by these rules from now on."""
        self._connect_timeout = connect_timeout
        self.ejector.settle(ejection)

    def retire(self) -> None:
        """No further request comes here: what is idle is closed now, the others as they get free."""
        self.is_ready = False
        self._most_idle = 0
        while self._idle:
            self._idle.pop().close()

    def knows(self, model: str | None) -> bool:
        """Whether its engine answers to that name; to none it always does."""
        return self.names is None or model is None or model in self.names

    def now(self) -> float:
        """The relay's clock."""
        return self._clock()

    def is_down(self, now: float) -> bool:
        """Whether it could not be reached a moment ago."""
        return now < self._down_until

    def mark_down(self) -> None:
        """Leave it alone for a moment."""
        self._down_until = self._clock() + DOWN_SECONDS

    def mark_up(self) -> None:
        """Somebody saw it well."""
        self._down_until = 0.0

    def take(self) -> Upstream | None:
        """The idle connection that was used last, or None."""
        idle = self._idle
        while idle:
            upstream = idle.pop()
            if upstream.is_quiet() and upstream.idle_since > self._clock() - IDLE_SECONDS:
                return upstream
            upstream.close()
        return None

    def release(self, upstream: Upstream, now: float) -> None:
        """Keep a connection for the next request."""
        if len(self._idle) < self._most_idle:
            upstream.idle_since = now
            self._idle.append(upstream)
        else:
            upstream.close()

    def forget(self, upstream: Upstream) -> None:
        """A connection ended while it was idle."""
        with suppress(ValueError):
            self._idle.remove(upstream)

    def expire(self, now: float) -> None:
        """Close what has been idle for too long: the list is in the order of last use."""
        oldest = now - IDLE_SECONDS
        while self._idle and self._idle[0].idle_since <= oldest:
            self._idle.pop(0).close()

    @property
    def idle_since(self) -> float | None:
        """Since when one of its connections has been idle; None where none is."""
        return self._idle[0].idle_since if self._idle else None

    def close_oldest(self) -> None:
        """Close the connection that has been idle for longest: its file is needed."""
        upstream = self._idle.pop(0)
        self.closed(upstream)
        upstream.close()

    def closed(self, upstream: Upstream) -> None:
        """A connection has no file any more, or will have none after this turn of the loop."""
        if upstream in self._open:
            self._open.discard(upstream)
            self._descriptors.give(self._files)

    def connect(self, exchange: Request) -> Callable[[], object]:
        """Open a connection for this request; returns what gives it up."""
        if not self._descriptors.take(self._files):
            return self._loop.call_soon(exchange.not_connected, out_of_files()).cancel
        opening = _Opening(self, exchange, self._clock() + self._connect_timeout)
        if len(self._tasks) < _MOST_OPENING:
            self._open_now(opening)
        else:  # one burst of clients is not answered with one of connections, which would fill the engine's queue
            self._waiting[opening] = None
        return opening.give_up

    def unwanted(self, opening: _Opening) -> None:
        """Forget one that waits for its turn."""
        if opening in self._waiting:
            del self._waiting[opening]
            self._descriptors.give(self._files)

    def _open_now(self, opening: _Opening) -> None:
        opening.task = self._loop.create_task(self._connect(opening))
        self._tasks.add(opening.task)
        opening.task.add_done_callback(self._give_back)

    def _open_next(self) -> None:
        """Whose turn it is now. Those before it had earlier deadlines, so nobody waits for longer than its own."""
        while self._waiting and len(self._tasks) < _MOST_OPENING:
            opening = next(iter(self._waiting))
            del self._waiting[opening]
            self._open_now(opening)

    def _give_back(self, task: asyncio.Task[None] | None) -> None:
        """Give the file back of one that is being opened, unless there is a connection that has it by now."""
        if task in self._tasks:
            self._tasks.discard(task)
            self._descriptors.give(self._files)
            self._open_next()

    def close(self) -> None:
        """Close every idle connection and give up those that are wanted."""
        for opening in tuple(self._waiting):
            self.unwanted(opening)
        for task in tuple(self._tasks):
            task.cancel()
        while self._idle:
            self._idle.pop().close()

    async def _connect(self, opening: _Opening) -> None:
        exchange, upstream = opening.request, Upstream(self)
        try:
            async with asyncio.timeout(opening.deadline - self._clock()):
                self._poller.adopt(await connect(self._loop, self.endpoint), upstream)
        except (OSError, TimeoutError) as error:
            self._give_back(asyncio.current_task())
            if error.errno in _OUT_OF_FILES:  # the engine is not to blame
                self._descriptors.ran_out(error)
                exchange.not_connected(out_of_files())
                return
            log.warning("%s cannot be reached at %s: %s", self.name, self.endpoint, error or "no answer")
            self.mark_down()
            exchange.not_connected()
        else:
            self._tasks.discard(cast("asyncio.Task[None]", asyncio.current_task()))
            self._open_next()
            self._open.add(upstream)
            if upstream.is_closing():  # its file is for the one that will be tried instead
                self.closed(upstream)
            exchange.connected(upstream)

    def _make_lines(self) -> bytes:
        endpoint = self.endpoint
        lines = b"Host: %b\r\n" % (b"localhost" if endpoint.uds else f"{endpoint.host}:{endpoint.port}".encode())
        if self._key_file is not None:
            key = _read_key(self._key_file)
            if key is None:  # tried again with the next request
                return lines
            lines += b"Authorization: Bearer %b\r\n" % key
        self._lines = lines
        return lines


def _read_key(path: Path) -> bytes | None:
    try:
        key = read_engine_key(path)
    except (OSError, ValueError) as error:
        log.warning("the engine's key cannot be read from %s: %s", path, error)
        return None
    return key.encode() if key else None
