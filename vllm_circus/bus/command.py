"""Operator commands: `send_command` asks, `CommandServer` (in the health plugin) answers.

A reply says that the wish was taken, not that it has come true: the states on the bus show that. A command is
answered once and never repeated by itself: "restart" twice is not "restart" once.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import zmq

from vllm_circus.bus.messages import CommandMessage, ReplyMessage, decode, encode
from vllm_circus.bus.sockets import Binding, Frames, Reader, brief, make_socket
from vllm_circus.errors import NotRunning

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable

log = logging.getLogger(__name__)


def send_command(address: str, message: CommandMessage, timeout: float) -> ReplyMessage:
    """Send a wish and wait for its answer, at most `timeout` seconds. Blocks.

    Raises:
        NotRunning: nobody answered, or something that is not ours did.
    """
    asking = make_socket(zmq.DEALER)
    try:
        asking.connect(address)
        asking.send_multipart([b"", encode(message)])
        if not asking.poll(max(1, int(timeout * 1000))):
            raise NotRunning("the health plugin does not answer", hint="see `vllm-circus status` and its log: health")
        try:
            return decode(ReplyMessage, asking.recv_multipart()[-1])
        except ValueError as error:
            raise NotRunning(
                "the health plugin gave an answer that cannot be read",
                hint="it is of another version: restart the set with `vllm-circus down` and `up`",
            ) from error
    finally:
        asking.close(linger=0)


class CommandServer:
    """Answers commands on `address` from the running loop, or from `loop` where none runs yet.

    `on_command` must not wait for anything: it takes the wish down and returns the answer.
    """

    def __init__(
        self,
        address: str,
        on_command: Callable[[CommandMessage], ReplyMessage],
        loop: AbstractEventLoop | None = None,
    ) -> None:
        """Raises OSError where the address cannot be taken."""
        self._on_command = on_command
        self._socket = make_socket(zmq.ROUTER)
        self._binding = Binding(self._socket, address)
        self._reader = Reader(self._socket, self._received, loop)

    def close(self) -> None:
        """Answer no more, and take the socket's file away."""
        self._reader.close()
        self._binding.remove()
        self._socket.close(linger=0)

    def _received(self, frames: Frames) -> None:
        reply = self._answer(frames[-1])
        try:
            self._socket.send_multipart([*frames[:-1], encode(reply)], zmq.NOBLOCK)
        except zmq.ZMQError as error:
            log.warning("an answer could not be sent: %s", error)
        self._reader.check()

    def _answer(self, data: bytes) -> ReplyMessage:
        try:
            command = decode(CommandMessage, data)
        except ValueError as error:
            log.warning("refused a command that cannot be read: %s", brief(error))
            return ReplyMessage((), "the command cannot be read: it is of another version")
        try:
            return self._on_command(command)
        except Exception:
            log.exception("a command failed: %s", command)
            return ReplyMessage((), "the health plugin failed to take the command: see its log")
