"""ZeroMQ sockets as this program uses them: on ipc, bounded, on the loop that runs anyway, without a thread.

Rules: a reader never blocks the loop and never raises into it; what cannot be read is counted and logged, then
forgotten. Queues are short, since every message is a whole picture and only the latest is worth having.

Nothing here imports asyncio or tornado: commands use the blocking half and have to start fast.
"""

from __future__ import annotations

import logging
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import zmq

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable

log = logging.getLogger(__name__)

#: Messages that a slow peer may be behind before it loses some.
HIGH_WATER = 64
#: Messages handled in one turn of the loop, so that a flood leaves room for everything else.
BURST = 64
#: Milliseconds between attempts to reach a peer that is not there, doubled up to the second value.
RECONNECT = (50, 500)

Frames = list[bytes]


def make_socket(kind: int) -> zmq.Socket[bytes]:
    """A bounded socket that holds nobody up when it is closed. One context serves the process."""
    made: zmq.Socket[bytes] = zmq.Context.instance().socket(kind)
    made.setsockopt(zmq.LINGER, 0)
    made.setsockopt(zmq.SNDHWM, HIGH_WATER)
    made.setsockopt(zmq.RCVHWM, HIGH_WATER)
    made.setsockopt(zmq.RECONNECT_IVL, RECONNECT[0])
    made.setsockopt(zmq.RECONNECT_IVL_MAX, RECONNECT[1])
    return made


def brief(error: Exception) -> str:
    """The first line of an error, since pydantic's are pages long."""
    return str(error).split("\n", 1)[0][:200]


class Binding:
    """An ipc address that we listen on.

    The file is made under another name and moved into place, so a peer finds the former one or ours, never none; a
    file that a killed process left is replaced. On closing, the file goes only if it is still ours: whoever took
    the address over keeps it.
    """

    def __init__(self, bound: zmq.Socket[bytes], address: str) -> None:
        """Raises OSError where the folder is missing or not ours."""
        self._path = Path(address.removeprefix("ipc://"))
        temporary = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        temporary.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as listener:
            listener.bind(str(temporary))
            temporary.chmod(0o600)
            listener.listen(128)
            temporary.replace(self._path)
            bound.setsockopt(zmq.USE_FD, listener.detach())
        bound.bind(address)
        self._identity = self._file()

    @property
    def held(self) -> bool:
        """Whether the address still leads to us."""
        return self._identity is not None and self._file() == self._identity

    def remove(self) -> None:
        """Take the file away if it is still ours."""
        if self.held:
            self._path.unlink(missing_ok=True)

    def _file(self) -> tuple[int, int] | None:
        with suppress(OSError):
            found = self._path.stat()
            return found.st_dev, found.st_ino
        return None


class Reader:
    """Calls `on_frames` for each message of a socket, from the loop.

    libzmq's descriptor is edge-triggered (zmq_getsockopt(3), ZMQ_FD): whoever sends on the same socket calls `check`
    afterwards, since the send may have used up the edge.
    """

    def __init__(
        self, source: zmq.Socket[bytes], on_frames: Callable[[Frames], None], loop: AbstractEventLoop | None = None
    ) -> None:
        self._source = source
        self._on_frames = on_frames
        self._loop = loop or _running_loop()
        self._descriptor = int(source.getsockopt(zmq.FD))
        self._open = True
        self._loop.add_reader(self._descriptor, self._wake)
        self._loop.call_soon(self._wake)

    def check(self) -> None:
        """Look soon, from the loop, whether something came."""
        if self._open:
            self._loop.call_soon(self._wake)

    def close(self) -> None:
        """Stop listening; the socket stays open."""
        if self._open:
            self._open = False
            self._loop.remove_reader(self._descriptor)

    def _wake(self) -> None:
        for _ in range(BURST):
            if not self._open or not self._source.poll(0):
                return
            try:
                frames = self._source.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            try:
                self._on_frames(frames)
            except Exception:
                log.exception("a message could not be handled")
        self.check()


def _running_loop() -> AbstractEventLoop:
    import asyncio

    return asyncio.get_running_loop()
