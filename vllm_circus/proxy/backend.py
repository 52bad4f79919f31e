"""One backend: where it is, its idle connections, and whether it was just seen to be down.

Rules: every backend has its own pool, so none waits for another's. A pooled connection is kept for less time than
any engine keeps it, and is watched while it is idle; so a request rarely meets one that is just being closed. Who
cannot be connected to is left alone for a moment, without waiting for a probe. Who loses a single connection is not:
the next request finds out by itself, on a connection of its own.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from vllm_circus.config.models import Ejection
from vllm_circus.plan.types import Endpoint
from vllm_circus.proxy.balance import Ejector, seed_of
from vllm_circus.proxy.counters import ModelCounter
from vllm_circus.proxy.upstream import Upstream

if TYPE_CHECKING:
    from vllm_circus.proxy.request import Request

log = logging.getLogger(__name__)

#: Seconds that an idle connection is kept: uvicorn closes after 5, and ours are told to keep longer.
IDLE_SECONDS = 4.0
#: Seconds without another try after a backend could not be reached; a snapshot that calls it ready ends them early.
DOWN_SECONDS = 1.0
#: Idle connections kept for one backend.
MOST_IDLE = 256
#: Connections that are being opened to it at a time.
_MOST_OPENING = 32


class Backend:
    """An engine, or the proxy's own control pages.

    Attributes:
        endpoint: where it listens.
        counter: what happens to its requests; None for the control pages.
        is_ready: its engine is ready, by the states that were told; who was never told of is.
        ejector, seed: see balance.
    """

    __slots__ = (
        "_clock",
        "_connect_timeout",
        "_down_until",
        "_idle",
        "_key_file",
        "_lines",
        "_loop",
        "_opening",
        "_tasks",
        "counter",
        "ejector",
        "endpoint",
        "is_control",
        "is_ready",
        "name",
        "seed",
    )

    def __init__(
        self,
        name: str,
        endpoint: Endpoint,
        *,
        loop: asyncio.AbstractEventLoop,
        clock: Callable[[], float],
        connect_timeout: float,
        counter: ModelCounter | None = None,
        ejection: Ejection | None = None,
        key_file: Path | None = None,
    ) -> None:
        self.name = name
        self.counter = counter
        self.is_control = counter is None
        self.is_ready = True
        self.ejector = Ejector(ejection or Ejection())
        self.seed = seed_of(name)
        self.endpoint = endpoint
        self._loop = loop
        self._clock = clock
        self._connect_timeout = connect_timeout
        self._key_file = key_file
        self._lines: bytes | None = None
        self._idle: list[Upstream] = []
        self._down_until = 0.0
        self._opening = asyncio.Semaphore(_MOST_OPENING)
        self._tasks: set[asyncio.Task[None]] = set()

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
        if len(self._idle) < MOST_IDLE:
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

    def connect(self, exchange: Request) -> Callable[[], object]:
        """Open a connection for this request; returns what gives it up."""
        task = self._loop.create_task(self._connect(exchange))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task.cancel

    def close(self) -> None:
        """Close every idle connection and give up those that are being opened."""
        for task in tuple(self._tasks):
            task.cancel()
        while self._idle:
            self._idle.pop().close()

    async def _connect(self, exchange: Request) -> None:
        def make() -> Upstream:
            return Upstream(self)

        try:
            # one burst of clients is not answered with one of connections, which would fill the engine's queue
            async with asyncio.timeout(self._connect_timeout), self._opening:
                if self.endpoint.uds:
                    _, upstream = await self._loop.create_unix_connection(make, self.endpoint.uds)
                else:
                    _, upstream = await self._loop.create_connection(make, self.endpoint.host, self.endpoint.port)
        except (OSError, TimeoutError) as error:
            log.warning("%s cannot be reached at %s: %s", self.name, self.endpoint, error or "no answer")
            self.mark_down()
            exchange.not_connected()
        else:
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
        value = json.loads(path.read_bytes()).get("VLLM_API_KEY")
    except (OSError, ValueError, AttributeError) as error:
        log.warning("the engine's key cannot be read from %s: %s", path, error)
        return None
    return str(value).encode() if value else None
