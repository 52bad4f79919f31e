"""Hear: the receiving end of the bus.

`Subscriber` is for those with a loop (proxy workers, the health plugin); `latest` and `follow` block and are for
commands. A publisher that comes later, or dies and comes again, is found without anybody doing anything. A message
that cannot be read (another version, a broken one) is dropped: the next one is at most a heartbeat away.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, TypeVar

import zmq

from vllm_circus.bus.messages import TOPIC_COUNTS, TOPIC_MODELS, CountsMessage, ModelsMessage, decode
from vllm_circus.bus.sockets import Frames, Reader, brief, make_socket

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable, Iterable, Iterator

    from vllm_circus.paths import Instance

log = logging.getLogger(__name__)

M = TypeVar("M")


def kind_of(topic: bytes) -> type[ModelsMessage] | type[CountsMessage]:
    """What is published under a topic. Raises KeyError where no such topic is."""
    return {TOPIC_MODELS: ModelsMessage, TOPIC_COUNTS: CountsMessage}[topic]


class Subscriber:
    """Calls `on_message` with each decoded message of the topics, from the running loop (or from `loop`)."""

    def __init__(
        self,
        address: str,
        topics: Iterable[bytes],
        on_message: Callable[[Any], None],
        loop: AbstractEventLoop | None = None,
    ) -> None:
        self._on_message = on_message
        self.dropped = 0
        """Messages that could not be read, since the beginning."""
        self._socket = _subscribe(address, topics)
        self._reader = Reader(self._socket, self._received, loop)

    def close(self) -> None:
        """Hear no more."""
        self._reader.close()
        self._socket.close(linger=0)

    def _received(self, frames: Frames) -> None:
        try:
            topic, data = frames
            message = decode(kind_of(topic), data)
        except (ValueError, KeyError) as error:
            self.dropped += 1
            log.warning("dropped a message that cannot be read (%d so far): %s", self.dropped, brief(error))
            return
        self._on_message(message)


def latest(address: str, topic: bytes, kind: type[M], timeout: float) -> M | None:
    """The last message of a topic, or None if none came within `timeout` seconds. Blocks."""
    source = _subscribe(address, [topic])
    deadline = time.monotonic() + timeout
    try:
        while (left := deadline - time.monotonic()) > 0:
            if source.poll(max(1, int(left * 1000))):
                message = _decoded(kind, source.recv_multipart())
                if message is not None:
                    return message
        return None
    finally:
        source.close(linger=0)


def follow(
    instance: Instance, timeout: float, also: Iterable[int] = ()
) -> Iterator[ModelsMessage | CountsMessage | None]:
    """Both buses for ever: each message as it comes, and None each time that nothing came for `timeout` seconds.

    None comes as well as soon as one of the descriptors `also` can be read: a terminal, say.
    """
    sources = {
        _subscribe(instance.health_bus, [TOPIC_MODELS]): ModelsMessage,
        _subscribe(instance.stats_bus, [TOPIC_COUNTS]): CountsMessage,
    }
    poller = zmq.Poller()
    for source in sources:
        poller.register(source, zmq.POLLIN)
    for descriptor in also:
        poller.register(descriptor, zmq.POLLIN)
    try:
        while True:
            ready = dict(poller.poll(max(1, int(timeout * 1000))))
            if not ready.keys() & sources.keys():
                yield None
            for source, kind in sources.items():
                if source in ready and (message := _decoded(kind, _newest(source))) is not None:
                    yield message
    finally:
        for source in sources:
            source.close(linger=0)


def _subscribe(address: str, topics: Iterable[bytes]) -> zmq.Socket[bytes]:
    source = make_socket(zmq.SUB)
    for topic in topics:
        source.setsockopt(zmq.SUBSCRIBE, topic)
    source.connect(address)
    return source


def _newest(source: zmq.Socket[bytes]) -> Frames:
    """The last of the messages that wait: whoever draws slowly skips what is stale."""
    frames = source.recv_multipart()
    while source.poll(0):
        frames = source.recv_multipart()
    return frames


def _decoded(kind: type[M], frames: Frames) -> M | None:
    try:
        return decode(kind, frames[1])
    except (ValueError, IndexError) as error:
        log.warning("dropped a message that cannot be read: %s", brief(error))
        return None
