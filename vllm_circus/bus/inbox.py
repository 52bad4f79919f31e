"""The workers' counters on their way to the stats plugin.

Every message is cumulative, so the pusher never waits: with nobody there, or with somebody who does not read, a
message is dropped and the next one says all that it said.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import zmq

from vllm_circus.bus.messages import WorkerMessage, decode, encode
from vllm_circus.bus.sockets import Binding, Frames, Reader, brief, make_socket

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable

log = logging.getLogger(__name__)


class Pusher:
    """Sends counters to `address`. Needs no loop and never blocks."""

    def __init__(self, address: str) -> None:
        self._socket = make_socket(zmq.PUSH)
        self._socket.setsockopt(zmq.IMMEDIATE, 1)  # queue for a peer that is there, not for one that may come
        self._socket.connect(address)

    def push(self, message: WorkerMessage) -> bool:
        """Send; False where nobody took it."""
        try:
            self._socket.send(encode(message), zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def close(self, linger: float = 0.2) -> None:
        """Leave, and give the last message up to `linger` seconds to go out (in the background)."""
        self._socket.close(linger=int(linger * 1000))


class Puller:
    """Calls `on_message` with each worker's message, from the running loop (or from `loop`)."""

    def __init__(
        self, address: str, on_message: Callable[[WorkerMessage], None], loop: AbstractEventLoop | None = None
    ) -> None:
        """Raises OSError where the address cannot be taken."""
        self._on_message = on_message
        self.dropped = 0
        """Messages that could not be read, since the beginning."""
        self._socket = make_socket(zmq.PULL)
        self._binding = Binding(self._socket, address)
        self._reader = Reader(self._socket, self._received, loop)

    def close(self) -> None:
        """Take no more, and take the socket's file away."""
        self._reader.close()
        self._binding.remove()
        self._socket.close(linger=0)

    def _received(self, frames: Frames) -> None:
        try:
            message = decode(WorkerMessage, frames[-1])
        except ValueError as error:
            self.dropped += 1
            log.warning("dropped counters that cannot be read (%d so far): %s", self.dropped, brief(error))
            return
        self._on_message(message)
