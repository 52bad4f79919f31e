from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import zmq

from vllm_circus.bus.messages import TOPIC_COUNTS, TOPIC_MODELS, VERSION, CountsMessage, ModelsMessage, encode
from vllm_circus.bus.publish import Publisher
from vllm_circus.bus.subscribe import Subscriber, follow, latest
from vllm_circus.paths import Instance

from .conftest import Until, models


def counts() -> CountsMessage:
    return CountsMessage(1.0, 8, {}, {}, {}, {}, (), ())


def test_a_message_reaches_every_subscriber(address: str, until: Until) -> None:
    async def scene() -> None:
        publisher = Publisher(address)
        first: list[ModelsMessage] = []
        second: list[ModelsMessage] = []
        subscribers = [Subscriber(address, [TOPIC_MODELS], heard.append) for heard in (first, second)]
        publisher.publish(TOPIC_MODELS, models(1))
        await until(lambda: first and second)
        publisher.publish(TOPIC_MODELS, models(2))
        await until(lambda: first[-1] == models(2) == second[-1])
        for each in subscribers:
            each.close()
        publisher.close()

    asyncio.run(scene())


def test_whoever_comes_late_is_told_the_last_message_at_once(address: str, until: Until) -> None:
    async def scene() -> None:
        publisher = Publisher(address)
        publisher.publish(TOPIC_MODELS, models(1))
        publisher.publish(TOPIC_MODELS, models(2))
        for _ in range(3):
            assert await first_heard() == models(2)
        publisher.close()

    async def first_heard() -> ModelsMessage:
        heard: list[ModelsMessage] = []
        subscriber = Subscriber(address, [TOPIC_MODELS], heard.append)
        await until(lambda: heard)
        subscriber.close()
        return heard[0]

    asyncio.run(scene())


def test_a_subscriber_hears_its_topics_only(address: str, until: Until) -> None:
    async def scene() -> None:
        publisher = Publisher(address)
        publisher.publish(TOPIC_MODELS, models(1))
        publisher.publish(TOPIC_COUNTS, counts())
        heard: list[object] = []
        subscriber = Subscriber(address, [TOPIC_COUNTS], heard.append)
        await until(lambda: heard)
        publisher.publish(TOPIC_MODELS, models(2))
        publisher.publish(TOPIC_COUNTS, counts())
        await until(lambda: len(heard) == 2)
        assert heard == [counts(), counts()]
        subscriber.close()
        publisher.close()

    asyncio.run(scene())


def test_a_subscriber_that_is_there_first_hears_a_publisher_that_comes_later_and_again(
    address: str, until: Until
) -> None:
    async def scene() -> None:
        heard: list[ModelsMessage] = []
        subscriber = Subscriber(address, [TOPIC_MODELS], heard.append)
        for sequence in (1, 2, 3):
            await asyncio.sleep(0)
            publisher = Publisher(address)
            publisher.publish(TOPIC_MODELS, models(sequence))
            await until(partial(heard.__contains__, models(sequence)))
            publisher.close()
        subscriber.close()

    asyncio.run(scene())


def test_what_cannot_be_read_is_dropped_counted_and_harms_nothing(address: str, until: Until) -> None:
    async def scene() -> None:
        source: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.XPUB)
        source.bind(address)
        heard: list[ModelsMessage] = []
        subscriber = Subscriber(address, [TOPIC_MODELS], heard.append)
        await until(lambda: source.poll(0))
        other_version = encode(models(1)).replace(f'"version":{VERSION}'.encode(), b'"version":99')
        bad = [b"", b"{", b"null", b"\xff\xfe", b"[" * 10_000, other_version]
        for data in bad:
            source.send_multipart([TOPIC_MODELS, data])
        source.send_multipart([TOPIC_MODELS])
        source.send_multipart([TOPIC_MODELS, b"1", b"2"])
        source.send_multipart([TOPIC_MODELS + b"-of-another-kind", b"{}"])
        source.send_multipart([TOPIC_MODELS, encode(models(5))])
        await until(lambda: heard)
        assert heard == [models(5)]
        assert subscriber.dropped == len(bad) + 3
        subscriber.close()
        source.close()

    asyncio.run(scene())


def test_a_callback_that_fails_does_not_deafen_the_subscriber(address: str, until: Until) -> None:
    async def scene() -> None:
        publisher = Publisher(address)
        heard: list[ModelsMessage] = []

        def fails_once(message: ModelsMessage) -> None:
            heard.append(message)
            if len(heard) == 1:
                raise RuntimeError("on purpose")

        subscriber = Subscriber(address, [TOPIC_MODELS], fails_once)
        publisher.publish(TOPIC_MODELS, models(1))
        await until(lambda: heard)
        publisher.publish(TOPIC_MODELS, models(2))
        await until(lambda: models(2) in heard)
        subscriber.close()
        publisher.close()

    asyncio.run(scene())


def test_a_subscriber_that_does_not_read_neither_stops_the_publisher_nor_fills_memory(
    address: str, until: Until
) -> None:
    async def scene() -> None:
        publisher = Publisher(address)
        deaf: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.SUB)
        deaf.setsockopt(zmq.SUBSCRIBE, b"")
        deaf.setsockopt(zmq.RCVHWM, 1)
        deaf.connect(address)
        publisher.publish(TOPIC_MODELS, models(0))
        await until(lambda: deaf.poll(0))
        before = _resident()
        big = models(1)
        big = ModelsMessage(big.sent_at, big.pid, 1, big.models * 200)
        for _ in range(3000):  # about 90 MB, if it were kept
            publisher.publish(TOPIC_MODELS, big)
        assert _resident() - before < 20 << 20
        deaf.close(linger=0)
        publisher.close()

    asyncio.run(scene())


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _publish_for_ever(address: str, sequence: int) -> None:
    async def scene() -> None:
        publisher = Publisher(address)
        publisher.publish(TOPIC_MODELS, models(sequence))
        await asyncio.sleep(60)

    asyncio.run(scene())


def test_the_address_of_a_killed_publisher_is_taken_over(address: str) -> None:
    spawn = multiprocessing.get_context("spawn")
    for sequence in (1, 2):
        owner = spawn.Process(target=_publish_for_ever, args=(address, sequence))
        owner.start()
        try:
            assert latest(address, TOPIC_MODELS, ModelsMessage, 20) == models(sequence)
        finally:
            os.kill(owner.pid or 0, signal.SIGKILL)
            owner.join()
        assert Path(address.removeprefix("ipc://")).is_socket()  # nobody cleaned up


def test_a_former_owner_that_leaves_late_does_not_take_its_successors_socket_away(address: str, until: Until) -> None:
    async def scene() -> None:
        former = Publisher(address)
        successor = Publisher(address)
        assert not former.held
        assert successor.held
        former.close()
        heard: list[ModelsMessage] = []
        subscriber = Subscriber(address, [TOPIC_MODELS], heard.append)
        successor.publish(TOPIC_MODELS, models(2))
        await until(lambda: heard)
        subscriber.close()
        successor.close()

    asyncio.run(scene())
    assert not Path(address.removeprefix("ipc://")).exists()


def test_the_socket_is_its_owners_alone(address: str) -> None:
    loop = asyncio.new_event_loop()
    publisher = Publisher(address, loop)
    assert Path(address.removeprefix("ipc://")).stat().st_mode & 0o777 == 0o600
    publisher.close()
    loop.close()


def test_latest_gives_up_in_time_when_nobody_publishes(address: str) -> None:
    started = time.monotonic()
    assert latest(address, TOPIC_MODELS, ModelsMessage, 0.2) is None
    assert time.monotonic() - started < 10


@pytest.fixture
def instance(short_dir: Path) -> Instance:
    return Instance("t", short_dir, short_dir, short_dir, short_dir)


@pytest.fixture
def both(instance: Instance) -> Iterator[None]:
    """Both publishers, on a loop of their own."""
    loop = asyncio.new_event_loop()
    publishers = Publisher(instance.health_bus, loop), Publisher(instance.stats_bus, loop)
    publishers[0].publish(TOPIC_MODELS, models(3))
    publishers[1].publish(TOPIC_COUNTS, counts())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    for publisher in publishers:
        publisher.close()
    loop.close()


@pytest.mark.usefixtures("both")
def test_follow_gives_both_buses_and_tells_of_silence(instance: Instance) -> None:
    heard: list[object] = []
    for message in follow(instance, 0.1):
        heard.append(message)
        if None in heard and len(heard) > 2:
            break
    assert models(3) in heard
    assert counts() in heard


def test_what_commands_import_needs_no_event_loop() -> None:
    modules = "vllm_circus.bus.subscribe, vllm_circus.bus.command, vllm_circus.bus.inbox, vllm_circus.bus.publish"
    code = f"import sys, {modules}; print([m for m in ('asyncio', 'tornado', 'circus') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
