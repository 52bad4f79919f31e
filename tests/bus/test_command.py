from __future__ import annotations

import asyncio
import time

import pytest
import zmq

from vllm_circus.bus.command import CommandServer, send_command
from vllm_circus.bus.messages import CommandMessage, ReplyMessage, decode
from vllm_circus.errors import NotRunning


def test_a_wish_is_answered(address: str) -> None:
    taken: list[CommandMessage] = []

    def take(command: CommandMessage) -> ReplyMessage:
        taken.append(command)
        return ReplyMessage(command.models)

    async def scene() -> None:
        server = CommandServer(address, take)
        wishes = [CommandMessage("stop", (name,)) for name in "abc"]
        replies = [await asyncio.to_thread(send_command, address, wish, 5.0) for wish in wishes]
        assert taken == wishes
        assert replies == [ReplyMessage((name,)) for name in "abc"]
        server.close()

    asyncio.run(scene())


def test_many_may_ask_at_once(address: str) -> None:
    async def scene() -> None:
        server = CommandServer(address, lambda command: ReplyMessage(command.models))
        asking = [asyncio.to_thread(send_command, address, CommandMessage("start", (str(n),)), 10.0) for n in range(20)]
        assert await asyncio.gather(*asking) == [ReplyMessage((str(n),)) for n in range(20)]
        server.close()

    asyncio.run(scene())


def test_silence_is_an_error_that_says_so_in_time(address: str) -> None:
    started = time.monotonic()
    with pytest.raises(NotRunning) as error:
        send_command(address, CommandMessage("start", ()), 0.2)
    assert error.value.exit_code == 3
    assert time.monotonic() - started < 10


def test_a_command_that_fails_or_cannot_be_read_is_answered_and_harms_nothing(address: str) -> None:
    def fail(command: CommandMessage) -> ReplyMessage:
        if command.models:
            raise RuntimeError("on purpose")
        return ReplyMessage(("a",))

    def send_raw(data: bytes) -> ReplyMessage:
        raw: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
        raw.connect(address)
        raw.send(data)
        assert raw.poll(5000)
        reply = decode(ReplyMessage, raw.recv_multipart()[-1])
        raw.close(linger=0)
        return reply

    async def scene() -> None:
        server = CommandServer(address, fail)
        for data in (b"", b"{", b'{"verb":"explode","models":[]}', b"\x00" * 100):
            assert "cannot be read" in (await asyncio.to_thread(send_raw, data)).error
        failing = CommandMessage("stop", ("a",))
        assert (await asyncio.to_thread(send_command, address, failing, 5.0)).error
        well = await asyncio.to_thread(send_command, address, CommandMessage("stop", ()), 5.0)
        assert well == ReplyMessage(("a",))
        server.close()

    asyncio.run(scene())
