"""A relay in the test's own process: its clock stands still until it is told, and what it holds can be seen."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import uvloop

from tests.proxy.conftest import a_plan
from tests.proxy.scripted import DEADLINE, Peer
from vllm_circus.plan.types import Endpoint, ModelPlan
from vllm_circus.proxy.downstream import Downstream
from vllm_circus.proxy.keys import Keys
from vllm_circus.proxy.relay import Relay


class Inside:
    """The relay and its ways in. Whatever a client reads, it has to read in a thread."""

    def __init__(self, folder: Path, models: tuple[ModelPlan, ...], **proxy: Any) -> None:
        self.now = 1000.0
        self._loop = asyncio.get_running_loop()
        self._clients: list[Peer] = []
        plan, control = a_plan(folder, *models, **proxy), Endpoint("localhost", 0, "/x")
        self.relay = Relay(plan, Keys(), loop=self._loop, control=control, clock=lambda: self.now)

    async def client(self, data: bytes = b"", *, room: int = 0) -> Peer:
        """A client that has sent this; with `room` both kernels take no more of an answer than some of these bytes."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            sock = socket.socket()
            if room:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
            sock.connect(listener.getsockname())
            ours = listener.accept()[0]
        if room:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, room)
        client = Peer(sock)
        self._clients.append(client)
        self.relay.poller.adopt(ours, Downstream(self.relay))
        await asyncio.to_thread(client.send, data)
        return client

    async def pass_time(self, seconds: float) -> None:
        """Let so much time pass, see to the limits, and let the loop do what follows."""
        self.now += seconds
        self.relay.sweep()
        await asyncio.sleep(0.02)

    def close(self) -> None:
        self.relay.close()
        for client in self._clients:
            client.close()


async def comes_true(condition: Callable[[], object]) -> bool:
    """Whether the condition comes true in time, with the loop going on."""
    for _ in range(int(DEADLINE / 0.005)):
        if condition():
            return True
        await asyncio.sleep(0.005)
    return False


def play(folder: Path, story: Callable[[Inside], Awaitable[None]], *models: ModelPlan, **proxy: Any) -> None:
    """Tell the story in a relay with these models and settings."""

    async def run() -> None:
        inside = Inside(folder, models, **proxy)
        try:
            await story(inside)
        finally:
            inside.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())
