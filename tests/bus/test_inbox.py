from __future__ import annotations

import asyncio
import time

import zmq

from vllm_circus.bus.inbox import Puller, Pusher
from vllm_circus.bus.messages import WorkerMessage, encode

from .conftest import Until, worker


def test_counters_arrive_in_order(address: str, until: Until) -> None:
    async def scene() -> None:
        heard: list[WorkerMessage] = []
        puller = Puller(address, heard.append)
        pusher = Pusher(address)
        await until(lambda: pusher.push(worker(0)))
        for sequence in range(1, 20):
            pusher.push(worker(sequence))
        await until(lambda: len(heard) == 20)
        assert heard == [worker(sequence) for sequence in range(20)]
        pusher.close()
        puller.close()

    asyncio.run(scene())


def test_pushing_to_nobody_neither_blocks_nor_keeps(address: str, until: Until) -> None:
    async def scene() -> None:
        pusher = Pusher(address)
        started = time.monotonic()
        assert not any(pusher.push(worker(sequence)) for sequence in range(1000))
        assert time.monotonic() - started < 10
        heard: list[WorkerMessage] = []
        puller = Puller(address, heard.append)
        await until(lambda: pusher.push(worker(2000)))
        await until(lambda: heard)
        assert heard == [worker(2000)]
        puller.close()
        again: list[WorkerMessage] = []
        puller = Puller(address, again.append)
        await until(lambda: pusher.push(worker(3000)) and again)
        assert again[-1] == worker(3000)
        pusher.close()
        puller.close()

    asyncio.run(scene())


def test_the_last_message_of_one_that_leaves_goes_out(address: str, until: Until) -> None:
    async def scene() -> None:
        heard: list[WorkerMessage] = []
        puller = Puller(address, heard.append)
        pusher = Pusher(address)
        await until(lambda: pusher.push(worker(0)))
        pusher.push(worker(1))
        pusher.close()
        await until(lambda: worker(1) in heard)
        puller.close()

    asyncio.run(scene())


def test_counters_that_cannot_be_read_are_dropped_and_counted(address: str, until: Until) -> None:
    async def scene() -> None:
        heard: list[WorkerMessage] = []
        puller = Puller(address, heard.append)
        raw: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.PUSH)
        raw.connect(address)
        for data in (b"", b"{}", b"[1]", encode(worker(1)) + b"x", encode(worker(1))):
            raw.send(data)
        await until(lambda: heard)
        assert heard == [worker(1)]
        assert puller.dropped == 4
        raw.close(linger=0)
        puller.close()

    asyncio.run(scene())
