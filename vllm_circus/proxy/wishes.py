"""What a worker says to the health plugin: engines that requests wait for (`want`).

Rules: a wish is said at once, then each second while anybody waits; so one that is lost is made good by the next, and
nothing here ever waits for an answer. With nobody there, a wish is dropped; a health plugin that was started anew is
found by itself. Replies are read for nothing but to make room for more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import zmq

from vllm_circus.bus.messages import CommandMessage, encode
from vllm_circus.bus.sockets import make_socket

#: Seconds between two wishes for one engine.
WISH_SECONDS = 1.0


class Wishes:
    """Says at `address` which engines are wanted. Needs no loop and never blocks."""

    def __init__(self, address: str, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._said: dict[str, float] = {}
        self._socket = make_socket(zmq.DEALER)
        self._socket.setsockopt(zmq.IMMEDIATE, 1)  # queue for a peer that is there, not for one that may come
        self._socket.connect(address)

    def say(self, engine: str) -> None:
        """A request wishes for this one: say so unless it was said within the last second."""
        if self._clock() - self._said.get(engine, -WISH_SECONDS) >= WISH_SECONDS:
            self.repeat((engine,))

    def repeat(self, engines: Sequence[str]) -> None:
        """Say that all of these are wanted; nothing where there are none."""
        if engines and self._send(CommandMessage("want", tuple(engines))):
            self._said.update(dict.fromkeys(engines, self._clock()))

    def close(self) -> None:
        """Say no more."""
        self._socket.close(linger=0)

    def _send(self, message: CommandMessage) -> bool:
        """False where nobody is there to take it."""
        try:
            self._drop_replies()
            self._socket.send_multipart([b"", encode(message)], zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def _drop_replies(self) -> None:
        while self._socket.poll(0):
            self._socket.recv_multipart(zmq.NOBLOCK)
