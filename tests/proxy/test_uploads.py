"""Requests that are not whole yet: what they wait for, what ends them, and who is to blame for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.proxy.bus import bus_of
from tests.proxy.conftest import Start, a_model
from tests.proxy.engines import ASK, Held, all_seen, ask, engines, replicas
from tests.proxy.inside import Inside, comes_true, play
from tests.proxy.scripted import DEADLINE, Backend, Peer, code_of, ok, post, read_message, until
from vllm_circus.config.models import Ejection, Limits, Queue
from vllm_circus.proxy.connection import LINGER_MOST, LINGER_SECONDS, READER_SECONDS
from vllm_circus.proxy.relay import MOST_HELD
from vllm_circus.proxy.request import HOLD

LARGE = post(b'{"model":"chat","pad":"' + b"x" * 20_000_000 + b'"}')
FROZEN = 600_000.0


@contextmanager
def uploading(client: Peer, data: bytes) -> Iterator[None]:
    """A thread sends this meanwhile, as far as it is taken."""

    def send() -> None:
        with suppress(OSError):
            client.send(data)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    yield
    client.close()
    thread.join()


# in the queue


@pytest.mark.parametrize("leave", [Peer.close, Peer.reset], ids=["closed", "reset"])
@pytest.mark.parametrize("sent", [HOLD + 1000, 600_000, 8_000_000])
def test_who_leaves_in_mid_upload_frees_its_place_in_the_queue(
    start: Start, backend: Backend, sent: int, leave: Callable[[Peer], None]
) -> None:
    held = Held()
    backend.plays(held)
    worker = start(*replicas(backend.port, max_in_flight=1, queue=Queue(timeout=600)))
    with bus_of(worker) as bus:

        def waiting(number: int) -> bool:
            return until(lambda: bus.told and bus.told[-1].models["chat-1"].waiting == number)

        ask(worker)
        assert all_seen(1, backend)
        client = worker.client()
        client.send(LARGE[:sent])
        assert waiting(1)
        leave(client)
        assert waiting(0)
    assert len(backend.requests) == 1


def test_who_stops_in_mid_upload_loses_its_place_in_the_queue(start: Start, backend: Backend) -> None:
    held = Held()
    backend.plays(held)
    limits = Limits(header_timeout=0.5)
    worker = start(*replicas(backend.port, max_in_flight=1, queue=Queue(timeout=600)), limits=limits)
    ask(worker)
    assert all_seen(1, backend)
    client = worker.client()
    client.send(LARGE[:600_000])
    response = read_message(client)
    assert (response.status, code_of(response)) == (408, "request_timeout")


def test_an_upload_goes_on_in_the_queue_and_is_whole_when_its_turn_comes(start: Start, backend: Backend) -> None:
    """So that a slow client has no place at the engine before it can make use of it."""
    held = Held()
    backend.plays(held)
    worker = start(*replicas(backend.port, max_in_flight=1))
    first = ask(worker)
    assert all_seen(1, backend)
    client = worker.client()
    client.send(LARGE)  # returns, since all of it is taken
    held.let(2)
    assert read_message(first).status == read_message(client).status == 200
    assert b"\r\n\r\n" + backend.requests[1].body == LARGE[-len(backend.requests[1].body) - 4 :]


def is_waiting(inside: Inside) -> bool:
    counter = inside.relay.backends["chat-1"].counter
    return counter is not None and counter.waiting == 1


def in_the_queue(backend: Backend) -> Callable[[Inside], asyncio.Future[Peer]]:
    """Lets one client wait behind another, with part of its upload sent, while others leave no room."""

    async def begin(inside: Inside) -> Peer:
        held = Held()
        backend.plays(held)
        await inside.client(post(ASK))
        assert await comes_true(lambda: backend.requests)
        inside.relay.hold(MOST_HELD // 2)
        client = await inside.client(LARGE[: HOLD + 100_000])
        assert await comes_true(lambda: is_waiting(inside))
        await asyncio.to_thread(client.send, LARGE[HOLD + 100_000 : HOLD + 200_000])
        await asyncio.sleep(0.05)
        return client

    return lambda inside: asyncio.ensure_future(begin(inside))


@pytest.mark.parametrize("leave", [Peer.half_close, Peer.reset], ids=["closed", "reset"])
def test_who_leaves_is_noticed_where_there_is_no_room_to_read_on(
    short_dir: Path, backend: Backend, leave: Callable[[Peer], None]
) -> None:
    async def story(inside: Inside) -> None:
        client = await in_the_queue(backend)(inside)
        await inside.pass_time(1)
        assert is_waiting(inside)
        leave(client)
        for _ in range(5):  # what it sent before is read piece by piece
            await inside.pass_time(1)
        assert await comes_true(lambda: not is_waiting(inside))

    play(short_dir, story, *replicas(backend.port, max_in_flight=1, queue=Queue(timeout=600)))


def test_who_is_not_read_from_is_not_told_that_it_stopped(short_dir: Path, backend: Backend) -> None:
    async def story(inside: Inside) -> None:
        await in_the_queue(backend)(inside)
        await inside.pass_time(Limits().idle_timeout * 2)
        assert is_waiting(inside)

    play(short_dir, story, *replicas(backend.port, max_in_flight=1, queue=Queue(timeout=6000)))


# the engine's time


def has_begun(backend: Backend) -> bool:
    """Whether some of the request has come: from here on no time is spent on connecting."""
    return any(peer.rest for peer in backend.connections)


def test_the_engines_time_begins_when_the_whole_request_has_been_sent(short_dir: Path, backend: Backend) -> None:
    async def story(inside: Inside) -> None:
        backend.plays(Held())
        client = await inside.client(LARGE[:600_000])
        assert await comes_true(lambda: has_begun(backend))
        for at in range(600_000, len(LARGE), 4_000_000):
            await inside.pass_time(9)
            await asyncio.to_thread(client.send, LARGE[at : at + 4_000_000])
        assert await comes_true(lambda: backend.requests)
        await inside.pass_time(9.9)
        assert inside.relay.backends["chat-1"].load
        await inside.pass_time(0.2)
        response = await asyncio.to_thread(read_message, client)
        assert (response.status, code_of(response)) == (504, "engine_timeout")

    play(short_dir, story, *replicas(backend.port), limits=Limits(response_timeout=10.0))


def test_the_engines_time_begins_anew_with_each_piece_that_it_takes(short_dir: Path, backend: Backend) -> None:
    """The client has long sent all of it: what the engine has not taken waits here."""
    take = threading.Semaphore(0)

    def slow(own: Backend, peer: Peer) -> None:
        left = len(LARGE)
        while left and take.acquire(timeout=DEADLINE):
            left -= len(peer.read_exactly(min(left, 2_000_000)))
        peer.send(ok(b"{}"))
        peer.ended()

    async def story(inside: Inside) -> None:
        backend.plays(slow)
        client = await inside.client()
        sending = asyncio.ensure_future(asyncio.to_thread(client.send, LARGE))
        take.release()
        assert await comes_true(lambda: has_begun(backend))
        while not sending.done() or inside.relay.backends["chat-1"].load:
            await inside.pass_time(9)
            take.release()
            await asyncio.sleep(0.05)
        response = await asyncio.to_thread(read_message, client)
        assert response.status == 200

    play(short_dir, story, *replicas(backend.port), limits=Limits(response_timeout=10.0))


def test_an_answer_that_has_begun_is_not_cut_for_an_upload_that_stopped(short_dir: Path, backend: Backend) -> None:
    more = threading.Event()

    def script(own: Backend, peer: Peer) -> None:
        peer.read_until(b"\r\n\r\n")
        peer.send(b"HTTP/1.1 413 Too Large\r\ncontent-length: 8\r\n\r\ntoo ")
        more.wait(DEADLINE)
        peer.send(b"much")
        peer.ended()

    async def story(inside: Inside) -> None:
        backend.plays(script)
        client = await inside.client(LARGE[:600_000])
        assert await asyncio.to_thread(client.read_until, b"too ")
        await inside.pass_time(Limits().idle_timeout / 2)
        more.set()
        assert await asyncio.to_thread(client.read_exactly, 4) == b"much"

    play(short_dir, story, *replicas(backend.port), limits=Limits(response_timeout=1.0))


# who is to blame


def test_a_worker_without_room_lets_uploads_pass_that_need_none(short_dir: Path, backend: Backend) -> None:
    """What goes on at once is not held, and what others hold is no reason to end it."""

    async def story(inside: Inside) -> None:
        client = await inside.client(LARGE[:600_000])
        assert await comes_true(lambda: inside.relay.backends["chat-1"].load)
        await inside.pass_time(1)
        inside.relay.hold(MOST_HELD)
        await asyncio.to_thread(client.send, LARGE[600_000:])
        assert (await asyncio.to_thread(read_message, client)).status == 200
        inside.relay.hold(-MOST_HELD)
        inside.relay.hold(MOST_HELD)  # raises where a byte is still counted

    play(short_dir, story, *replicas(backend.port))


@pytest.mark.parametrize("sent", [100_000, 600_000])
def test_a_worker_that_ends_or_has_no_room_blames_no_replica(short_dir: Path, sent: int) -> None:
    """What is held still is refused, before and after it is known where it goes."""

    async def story(inside: Inside) -> None:
        await inside.client(LARGE[:sent])
        await inside.client(post(ASK))
        await asyncio.sleep(0.1)
        for down in tuple(inside.relay.connections):
            down.end()
        await asyncio.sleep(0.05)
        for backend in inside.relay.backends.values():
            assert not backend.load
            assert not backend.ejector.marked

    with engines(2) as made:
        for engine in made:
            engine.plays(Held())
        play(short_dir, story, *replicas(*(it.port for it in made), ejection=Ejection(failures=1)))


# early answers


def early(own: Backend, peer: Peer) -> None:
    """Answer as soon as the head is here, and hang up: what of the body is under way makes that a reset."""
    peer.read_until(b"\r\n\r\n")
    peer.send(b"HTTP/1.1 413 Too Large\r\ncontent-length: 8\r\nconnection: close\r\n\r\ntoo much")
    peer.sock.close()


def test_an_early_answer_arrives_whose_engine_hangs_up_on_the_upload(start: Start, backend: Backend) -> None:
    backend.plays(early)
    worker = start(*replicas(backend.port))
    for _ in range(60):
        client = worker.client()
        with uploading(client, LARGE):
            response = read_message(client)
            assert (response.status, response.body) == (413, b"too much")


# refusals


def test_a_refusal_waits_for_who_is_still_sending(short_dir: Path) -> None:
    """A client that reads when it has sent all would find a reset in the place of the answer."""

    async def story(inside: Inside) -> None:
        client = await inside.client(LARGE[:600_000])
        for _ in range(10):
            await inside.pass_time(LINGER_SECONDS)
            await asyncio.to_thread(client.send, b"x" * 200_000)
        assert (await asyncio.to_thread(read_message, client)).status == 404

    play(short_dir, story, a_model("alpha", 1))


@pytest.mark.parametrize(("size", "seconds"), [(100, 3 * READER_SECONDS), (200_000, 3 * READER_SECONDS + LINGER_MOST)])
def test_a_refusal_waits_for_nobody_for_long(short_dir: Path, size: int, seconds: float) -> None:
    """Neither for who sends just a little now and then, nor for who never comes to an end."""

    async def story(inside: Inside) -> None:
        client = await inside.client(LARGE[:600_000])
        while inside.relay.connections and inside.now < 1000 + seconds:
            await inside.pass_time(LINGER_SECONDS)
            with suppress(OSError):
                await asyncio.to_thread(client.send, b"x" * size)
        assert not inside.relay.connections

    play(short_dir, story, a_model("alpha", 1))
