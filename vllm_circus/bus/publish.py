"""Tell everybody: the publishing end of the bus.

A new subscriber is sent the last message of its topic at once, so that `status` need not wait for the next beat. The
message goes to every subscriber of that topic (an XPUB socket cannot address one); it is a whole picture, so hearing
it twice does no harm. A subscriber that does not read loses messages; it never holds up the publisher.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import zmq

from vllm_circus.bus.messages import encode
from vllm_circus.bus.sockets import Binding, Frames, Reader, make_socket

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

_SUBSCRIBED = 1  # first byte of what an XPUB socket receives: zmq_socket(3)


class Publisher:
    """Publishes on `address` from the running loop, or from `loop` where none runs yet."""

    def __init__(self, address: str, loop: AbstractEventLoop | None = None) -> None:
        """Raises OSError where the address cannot be taken."""
        self._last: dict[bytes, bytes] = {}
        self._socket = make_socket(zmq.XPUB)
        self._socket.setsockopt(zmq.XPUB_VERBOSE, 1)  # a second subscriber of a topic is to be heard of too
        self._binding = Binding(self._socket, address)
        self._reader = Reader(self._socket, self._subscribed, loop)

    @property
    def held(self) -> bool:
        """Whether the address still leads to us, or somebody took it over."""
        return self._binding.held

    def publish(self, topic: bytes, message: Any) -> None:
        """Send a message of `bus.messages` to those who are subscribed, and keep it for those who come."""
        data = encode(message)
        self._last[topic] = data
        self._send(topic, data)

    def close(self) -> None:
        """Leave: nothing more is sent, and the socket's file goes."""
        self._reader.close()
        self._binding.remove()
        self._socket.close(linger=0)

    def _subscribed(self, frames: Frames) -> None:
        wish = frames[0]
        if wish[:1] != bytes((_SUBSCRIBED,)):
            return
        for topic, data in self._last.items():
            if topic.startswith(wish[1:]):
                self._send(topic, data)

    def _send(self, topic: bytes, data: bytes) -> None:
        self._socket.send_multipart([topic, data], zmq.NOBLOCK)  # an XPUB drops for the slow, it never says "again"
        if self._socket.poll(0):
            self._reader.check()
