"""The end of a worker: what it still answers, and what those see whom it cuts."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.proxy.conftest import Start, Worker, a_model
from tests.proxy.inside import Inside, comes_true, play
from tests.proxy.scripted import (
    DEADLINE,
    DONE,
    SSE_HEAD,
    Backend,
    Peer,
    Script,
    chunk,
    code_of,
    event,
    get,
    ok,
    post,
    read_message,
    until,
)
from vllm_circus.config.models import Limits
from vllm_circus.proxy.connection import READER_SECONDS

ALPHA = b'{"model":"alpha"}'
ASK = post(ALPHA)
#: Bytes: more than two small sockets take, less than what an engine is paused for.
LARGE_ANSWER = 70_000
HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
STREAM = b'{"model":"alpha","stream":true}'


def test_draining_finishes_streams_and_takes_no_more(start: Start, backend: Backend) -> None:
    worker = start(a_model("alpha", backend.port))
    finish = threading.Event()

    def script(backend: Backend, peer: Peer) -> None:
        backend.read_request(peer)
        peer.send(SSE_HEAD + event(0))
        assert finish.wait(10)
        peer.send(event(1) + DONE)

    backend.plays(script)
    stream, idle, late = worker.client(), worker.client(), worker.client()
    stream.send(post(STREAM))
    stream.read_until(event(0))
    late.send(get(b"/health"))
    read_message(late)
    worker.process.terminate()
    assert until(lambda: b"drains" in worker.log.read_bytes())
    late.send(get(b"/health"))
    answer = read_message(late)
    assert (answer.status, answer.get(b"connection")) == (200, b"close"), "a request under way is answered"
    assert idle.ended(3)
    with pytest.raises(OSError, match="refused"):
        worker.client()
    finish.set()
    assert stream.read_until(DONE)
    assert worker.process.wait(5) == 0


def test_draining_ends_at_its_limit(start: Start, backend: Backend) -> None:
    worker = start(a_model("alpha", backend.port), drain_timeout=0.5)

    def script(backend: Backend, peer: Peer) -> None:
        if b"stream" in backend.read_request(peer).body:
            peer.send(SSE_HEAD + event(0))
        peer.ended()

    backend.plays(script)
    client, silent = worker.client(), worker.client()
    client.send(post(STREAM))
    client.read_until(event(0))
    silent.send(post(ALPHA))
    assert until(lambda: len(backend.requests) == 2)
    assert worker.stop() == 0
    assert client.ended()
    assert b"shutting_down" in client.rest
    assert b"0\r\n\r\n" not in client.rest
    assert code_of(read_message(silent)) == "shutting_down"
    assert not list(worker.plan.instance.run_dir.glob("proxy-*.sock"))


# answers that end with their connection: only a reset tells that they were cut


def half(framed: bytes) -> Script:
    """An engine that sends this much of an answer, and no more."""

    def script(backend: Backend, peer: Peer) -> None:
        backend.read_request(peer)
        peer.send(framed)
        peer.ended()

    return script


ENDLESS = {
    "an engine without a length": (b"HTTP/1.1 200 OK\r\n\r\nhalf", ASK),
    "a client of HTTP/1.0": (CHUNKED + b"4\r\nhalf\r\n", ASK.replace(b"HTTP/1.1", b"HTTP/1.0")),
    "events without a length": (b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: half\n\n", ASK),
}


def end_twice(worker: Worker) -> None:
    worker.process.terminate()
    assert until(lambda: b"drains" in worker.log.read_bytes())
    worker.process.terminate()


def end_at_the_limit(worker: Worker) -> None:
    worker.process.terminate()


def kill(worker: Worker) -> None:
    worker.process.kill()


@pytest.mark.parametrize("end", [end_twice, end_at_the_limit, kill])
@pytest.mark.parametrize(("framed", "ask"), ENDLESS.values(), ids=ENDLESS)
def test_an_answer_without_an_end_of_its_own_is_reset(
    start: Start, backend: Backend, framed: bytes, ask: bytes, end: Callable[[Worker], None]
) -> None:
    worker = start(a_model("alpha", backend.port), drain_timeout=0.3)
    backend.plays(half(framed))
    client = worker.client()
    client.send(ask)
    client.read_until(b"half")
    end(worker)
    with pytest.raises(ConnectionResetError):
        client.read_all()


@pytest.mark.parametrize("end", [end_twice, end_at_the_limit])
def test_an_answer_that_its_client_has_not_taken_is_whole_or_reset(
    start: Start, backend: Backend, end: Callable[[Worker], None]
) -> None:
    """Whether the engine has sent all of it, and the rest waits for a client that reads late, or not."""

    def script(own: Backend, peer: Peer) -> None:
        size = int(json.loads(own.read_request(peer).body)["size"])
        peer.send(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * size)
        peer.close()

    backend.plays(script)
    worker = start(a_model("alpha", backend.port), drain_timeout=0.3, request_logging=True)
    clients = {size: slow_reader(worker, size) for size in range(300_000, 6_000_000, 200_000)}
    assert until(lambda: b"status=200" in worker.log.read_bytes())
    answered = -1
    while answered != worker.log.read_bytes().count(b"status=200"):
        answered = worker.log.read_bytes().count(b"status=200")
        time.sleep(0.3)
    end(worker)
    assert worker.process.wait(DEADLINE) == 0
    assert 0 < sum(is_whole(client, size) for size, client in clients.items()) < len(clients)


def slow_reader(worker: Worker, size: int, *lines: bytes) -> Peer:
    """A client with little room, which asks for an answer of this size that ends with its connection."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(("127.0.0.1", worker.port))
    client = Peer(sock)
    worker.clients.append(client)
    client.send(post(b'{"model":"alpha","size":%d}' % size, *lines))
    return client


def is_whole(client: Peer, size: int) -> bool:
    """Whether the answer is; one that is not has to end with a reset."""
    try:
        answer = client.read_all()
    except ConnectionResetError:
        return False
    assert len(answer.partition(b"\r\n\r\n")[2]) == size
    return True


@pytest.mark.parametrize("end", [end_twice, end_at_the_limit])
@pytest.mark.parametrize(
    "framed", [CHUNKED + b"4\r\nhalf\r\n", SSE_HEAD + chunk(b"data: half\n\n"), HEAD + b"content-length: 9\r\n\r\nhalf"]
)
def test_an_answer_with_an_end_of_its_own_does_not_come_to_it(
    start: Start, backend: Backend, framed: bytes, end: Callable[[Worker], None]
) -> None:
    worker = start(a_model("alpha", backend.port), drain_timeout=0.3)
    backend.plays(half(framed))
    client = worker.client()
    client.send(ASK)
    client.read_until(b"half")
    end(worker)
    assert client.ended()
    assert not client.rest.endswith(b"0\r\n\r\n")
    assert b"[DONE]" not in client.rest


# who does not take a last answer


def test_a_last_answer_that_nobody_takes_is_given_up_soon(short_dir: Path, backend: Backend) -> None:
    """However long a reader may take between two pieces of an answer that is still being made."""

    async def story(inside: Inside) -> None:
        client = await last_answer(inside, backend)
        for look in range(2):
            assert len(inside.relay.connections) == 1, look
            await inside.pass_time(READER_SECONDS)
        assert await comes_true(lambda: not inside.relay.connections)
        with pytest.raises(ConnectionResetError):
            client.read_all()

    play(short_dir, story, a_model("alpha", backend.port))


def test_a_last_answer_that_is_taken_slowly_is_left_its_time(short_dir: Path, backend: Backend) -> None:
    async def story(inside: Inside) -> None:
        client = await last_answer(inside, backend)
        got = 0
        while got < LARGE_ANSWER and inside.relay.connections:
            await inside.pass_time(READER_SECONDS - 0.1)
            got += len(await asyncio.to_thread(client.sock.recv, 10_000))
        assert inside.now > 1000 + 5 * READER_SECONDS
        assert got + len(await asyncio.to_thread(client.read_all)) > LARGE_ANSWER

    play(short_dir, story, a_model("alpha", backend.port))


def test_a_last_answer_has_no_more_time_than_a_piece_of_one(short_dir: Path, backend: Backend) -> None:
    async def story(inside: Inside) -> None:
        client = await last_answer(inside, backend)
        for _ in range(6):
            await inside.pass_time(READER_SECONDS)
            if inside.relay.connections:
                await asyncio.to_thread(client.sock.recv, 10_000)
        assert await comes_true(lambda: not inside.relay.connections)

    play(short_dir, story, a_model("alpha", backend.port), limits=Limits(idle_timeout=4 * READER_SECONDS))


async def last_answer(inside: Inside, backend: Backend) -> Peer:
    """A client whose last answer is written, and that takes it when the test does."""
    backend.answers(ok(b"x" * LARGE_ANSWER))
    client = await inside.client(post(ALPHA, b"Connection: close"), room=4096)
    assert await comes_true(lambda: backend.requests and not inside.relay.backends["alpha"].load)
    return client
