"""Which connections without TLS have something to be done: an epoll set of our own, which for the loop is one file.

Why the loop does not do this: libuv watches by level, so the kernel looks at each ready socket once more; what came is
read into a buffer of the loop's and copied, with the interpreter's lock taken twice. TLS, timers, tasks and all that
comes once in a while stay the loop's.
"""

from __future__ import annotations

import asyncio
import select
import socket
from typing import Final, cast

from vllm_circus.proxy.sockets import Told
from vllm_circus.proxy.transport import IN, SocketTransport

#: Sockets that are looked at in one turn.
_MOST_EVENTS: Final = 512


class Poller:
    """The connections of one loop.

    Attributes:
        loop: the loop.
    """

    __slots__ = ("_epoll", "_poll", "_transports", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._epoll = select.epoll()
        self._poll = self._epoll.poll
        self._transports: list[SocketTransport | None] = []  # by descriptor
        loop.add_reader(self._epoll.fileno(), self._turn)

    def adopt(self, sock: socket.socket, told: Told) -> None:
        """Serve this connected socket, which is the poller's to close from here on. Raises OSError."""
        descriptor = sock.fileno()
        try:
            if self._epoll.closed:
                raise ConnectionAbortedError("the worker ends")
            sock.setblocking(False)
            if sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._epoll.register(descriptor, IN)
        except OSError:
            sock.close()
            raise
        transports = self._transports
        while len(transports) <= descriptor:
            transports.append(None)
        transport = transports[descriptor] = SocketTransport(self, sock, told)
        told.connection_made(cast("asyncio.BaseTransport", transport))

    def close(self) -> None:
        """Look at nothing any more; the transports are aborted before."""
        if not self._epoll.closed:
            self.loop.remove_reader(self._epoll.fileno())
            self._epoll.close()

    def watch(self, descriptor: int, events: int) -> None:
        """Be told of these events from now on, and of those that are there already."""
        if not self._epoll.closed:
            self._epoll.modify(descriptor, events)

    def forget(self, descriptor: int) -> None:
        """Look at it no more."""
        self._transports[descriptor] = None
        if not self._epoll.closed:
            self._epoll.unregister(descriptor)

    def _turn(self) -> None:
        transports = self._transports
        for descriptor, events in self._poll(0, _MOST_EVENTS):
            transport = transports[descriptor]
            if transport is None:  # ended by what another one was told in this turn
                continue
            try:
                transport.ready(events)
            except Exception as error:  # the others are to be served
                transport.fail(error)
                self.loop.call_exception_handler({"message": "a connection's protocol failed", "exception": error})
