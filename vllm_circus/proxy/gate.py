"""The way in: connections are accepted here, one a turn of the loop, and never more than the cap at a time.

Rules, and why this is no `create_server`:

- Whoever is accepted is served. Where the process is out of descriptors, accepting rests for a moment and the clients
  wait in the kernel's queue; libuv would accept and hang up on all of them, or ask again without end (uv__server_io).
- The listening sockets belong to circusd and are shared with the other workers. One connection a turn leaves the
  others their part, and the length of the queue stays as circusd set it.
- A TLS handshake counts as a connection from the moment it is accepted, and has as long as a request's header.
- What a busy or an ill-willed world can bring about any number of times is said once in a while.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from vllm_circus.proxy.downstream import Downstream
from vllm_circus.proxy.relay import Relay
from vllm_circus.proxy.tls import Certificates

log = logging.getLogger(__name__)

#: Seconds for which nothing is accepted after it failed for want of descriptors or memory.
_REST = 0.5
#: Seconds between two log lines of one kind.
_SILENCE = 10.0
#: Part of the cap below which accepting goes on.
_LOW = 0.95
#: Bytes that may wait for a client behind TLS before its engine is paused; what a plain connection has.
_TLS_ROOM = 64 << 10
#: These are about one connection that is gone again; the next one may be well (accept(2)).
_GONE = frozenset(
    {
        *(errno.ECONNABORTED, errno.EPROTO, errno.ENOPROTOOPT, errno.EOPNOTSUPP, errno.EPERM),
        *(errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENONET),
    }
)


@dataclass(frozen=True)
class Listener:
    """A listening socket, and the certificates of those who come by it."""

    socket: socket.socket
    certificates: Certificates | None = None


class Gate:
    """Accepts from `listeners` for `relay` while there are fewer than `cap` connections, and files for more."""

    def __init__(self, relay: Relay, listeners: Sequence[Listener], cap: int) -> None:
        self._relay = relay
        self._loop = relay.loop
        self._listeners = tuple(listeners)
        self._cap = cap
        self._accepting = self._shut = False
        self._resting: asyncio.TimerHandle | None = None
        self._arriving: set[asyncio.Task[None]] = set()
        self._said: dict[str, float] = {}
        self._descriptors = relay.descriptors
        self._descriptors.arriving = self._arriving
        self._descriptors.on_change = self._check

    def __repr__(self) -> str:
        doing = "shut" if self._shut else "open" if self._accepting else "resting" if self._resting else "full"
        return f"<Gate {doing}, {self._connections()} of {self._cap}>"

    @property
    def arriving(self) -> int:
        """Connections that are accepted and not yet the relay's: TLS handshakes above all."""
        return len(self._arriving)

    def open(self) -> None:
        """Accept."""
        for listener in self._listeners:
            self._loop.add_reader(listener.socket.fileno(), self._accept, listener)
        self._accepting = True

    def take_cap(self, cap: int) -> None:
        """So many connections may there be from now on; those that are more stay."""
        self._cap = cap
        self._check()

    def close(self) -> None:
        """Accept no more; those that arrive may come in. What waits in the kernel's queue is for another worker."""
        if self._shut:
            return
        self._shut = True
        self._pause()
        if self._resting is not None:
            self._resting.cancel()
        for listener in self._listeners:
            listener.socket.close()

    def cut(self) -> None:
        """Give those up that still arrive."""
        for task in tuple(self._arriving):
            task.cancel()

    def _accept(self, listener: Listener) -> None:
        try:
            sock, _ = listener.socket.accept()
        except (BlockingIOError, InterruptedError):  # another worker has it
            return
        except OSError as error:
            if error.errno not in _GONE:
                self._rest(error)
            return
        if listener.certificates is None:
            self._take(sock)
        else:
            task = self._loop.create_task(self._shake_hands(sock, listener.certificates))
            self._arriving.add(task)
            task.add_done_callback(self._arrived)
        self._check()

    def _take(self, sock: socket.socket) -> None:
        try:
            self._relay.poller.adopt(sock, Downstream(self._relay))
        except OSError as error:
            self._did_not_come(error)

    async def _shake_hands(self, sock: socket.socket, certificates: Certificates) -> None:
        def make() -> asyncio.Protocol:
            return cast("asyncio.Protocol", Downstream(self._relay))  # one that is compiled has no such base

        sock.setblocking(False)
        limits = self._relay.limits
        try:
            transport, _ = await self._loop.connect_accepted_socket(
                make,
                sock,
                ssl=certificates.context,
                ssl_handshake_timeout=limits.header_timeout,
                ssl_shutdown_timeout=limits.idle_timeout,  # the relay's own limits are shorter, and know why
            )
            if not transport.is_closing():
                transport.set_write_buffer_limits(_TLS_ROOM)
        except OSError as error:  # TLS's errors are such, too
            self._did_not_come(error)

    def _did_not_come(self, error: OSError) -> None:
        self._say("arriving", logging.INFO, "a connection did not come about: %s", error)

    def _arrived(self, task: asyncio.Task[None]) -> None:
        self._arriving.discard(task)
        self._check()

    def _connections(self) -> int:
        return len(self._relay.connections) + len(self._arriving)

    def _check(self) -> None:
        """Pause or go on, as the number of connections and the files for more have it."""
        count, files = self._connections(), self._descriptors
        if self._accepting:
            if count >= self._cap:
                self._pause()
                self._say("full", logging.WARNING, "%d connections are open, the most allowed: accepting pauses", count)
            elif not files.admits():
                self._pause()
                text = "%d of %d files for connections are in use, too many for more clients: accepting pauses"
                self._say("full", logging.WARNING, text, files.used, files.most)
        elif not (self._shut or self._resting) and count <= self._cap * _LOW and files.admits(_LOW):
            self.open()

    def _rest(self, error: OSError) -> None:
        self._pause()
        self._resting = self._loop.call_later(_REST, self._rested)
        self._say("resting", logging.ERROR, "no connection can be accepted for the moment: %s", error.strerror)

    def _rested(self) -> None:
        self._resting = None
        self._check()

    def _pause(self) -> None:
        if self._accepting:
            self._accepting = False
            for listener in self._listeners:
                self._loop.remove_reader(listener.socket.fileno())

    def _say(self, kind: str, level: int, text: str, *values: object) -> None:
        now = self._relay.clock()
        if now - self._said.get(kind, -_SILENCE) >= _SILENCE:
            self._said[kind] = now
            log.log(level, text, *values)
