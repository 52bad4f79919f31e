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

from vllm_circus.plan.types import Endpoint
from vllm_circus.proxy.upstream import Upstream

if TYPE_CHECKING:
    from vllm_circus.proxy.exchange import Exchange

log = logging.getLogger(__name__)

#: Seconds that an idle connection is kept: uvicorn closes after 5, and ours are told to keep longer.
IDLE_SECONDS = 4.0
#: Seconds without another try after a backend could not be reached; a snapshot that calls it ready ends them early.
DOWN_SECONDS = 1.0
#: Idle connections kept for one backend.
MOST_IDLE = 256


class Backend:
    """An engine, or the proxy's own control pages."""

    __slots__ = (
        "_clock",
        "_connect_timeout",
        "_down_until",
        "_endpoint",
        "_idle",
        "_key",
        "_key_file",
        "_loop",
        "_tasks",
        "host",
        "is_control",
        "name",
    )

    def __init__(
        self,
        name: str,
        endpoint: Endpoint,
        *,
        loop: asyncio.AbstractEventLoop,
        clock: Callable[[], float],
        connect_timeout: float,
        key_file: Path | None = None,
        is_control: bool = False,
    ) -> None:
        self.name = name
        self.is_control = is_control
        self.host = b"localhost" if endpoint.uds else f"{endpoint.host}:{endpoint.port}".encode()
        self._endpoint = endpoint
        self._loop = loop
        self._clock = clock
        self._connect_timeout = connect_timeout
        self._key_file = key_file
        self._key: bytes | None = None
        self._idle: list[Upstream] = []
        self._down_until = 0.0
        self._tasks: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        down = ", down" if self.is_down(self._clock()) else ""
        return f"<Backend {self.name} at {self._endpoint}, {len(self._idle)} idle{down}>"

    @property
    def key(self) -> bytes | None:
        """The engine's own API key, read when it is first needed."""
        if self._key is None and self._key_file is not None:
            self._key = _read_key(self._key_file)
        return self._key

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
        oldest = self._clock() - IDLE_SECONDS
        while self._idle:
            upstream = self._idle.pop()
            if upstream.idle_since > oldest and upstream.is_quiet():
                return upstream
            upstream.close()
        return None

    def release(self, upstream: Upstream) -> None:
        """Keep a connection for the next request."""
        if len(self._idle) >= MOST_IDLE:
            upstream.close()
            return
        upstream.idle_since = self._clock()
        self._idle.append(upstream)

    def forget(self, upstream: Upstream) -> None:
        """A connection ended while it was idle."""
        with suppress(ValueError):
            self._idle.remove(upstream)

    def expire(self, now: float) -> None:
        """Close what has been idle for too long: the list is in the order of last use."""
        oldest = now - IDLE_SECONDS
        while self._idle and self._idle[0].idle_since <= oldest:
            self._idle.pop(0).close()

    def connect(self, exchange: Exchange) -> Callable[[], object]:
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

    async def _connect(self, exchange: Exchange) -> None:
        def make() -> Upstream:
            return Upstream(self)

        try:
            async with asyncio.timeout(self._connect_timeout):
                if self._endpoint.uds:
                    _, upstream = await self._loop.create_unix_connection(make, self._endpoint.uds)
                else:
                    _, upstream = await self._loop.create_connection(make, self._endpoint.host, self._endpoint.port)
        except (OSError, TimeoutError) as error:
            log.warning("%s cannot be reached at %s: %s", self.name, self._endpoint, error or "no answer")
            self.mark_down()
            exchange.not_connected()
        else:
            exchange.connected(upstream)


def _read_key(path: Path) -> bytes | None:
    try:
        value = json.loads(path.read_bytes()).get("VLLM_API_KEY")
    except (OSError, ValueError, AttributeError) as error:
        log.warning("the engine's key cannot be read from %s: %s", path, error)
        return None
    return str(value).encode() if value else None
