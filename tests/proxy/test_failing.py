"""Engines that fail: what their clients see of it, and what others do not."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop

from tests.proxy.conftest import Start, Worker, a_model
from tests.proxy.scripted import (
    DEADLINE,
    DONE,
    SSE_HEAD,
    Backend,
    Peer,
    chunk,
    code_of,
    event,
    ok,
    post,
    read_message,
    serve_always,
    until,
)
from vllm_circus.plan.types import Endpoint
from vllm_circus.proxy.sockets import reset_on_close, was_reset

ALPHA = b'{"model":"alpha"}'
STREAM = b'{"model":"alpha","stream":true}'


def test_an_engine_that_is_not_there_is_503_at_once_and_found_again(
    start: Start, free_port: Callable[[], int], backend: Backend
) -> None:
    worker = start(a_model("gone", free_port()), a_model("alpha", backend.port))
    begun = time.monotonic()
    for _ in range(20):
        response = worker.chat(b'{"model":"gone"}')
        assert (response.status, code_of(response), response.get(b"retry-after")) == (503, "model_not_ready", b"1")
        assert worker.chat(ALPHA).status == 200
    assert time.monotonic() - begun < DEADLINE


def test_an_engine_that_comes_back_is_found_without_any_plugin(start: Start) -> None:
    backend = Backend()
    worker = start(a_model("alpha", backend.port))
    assert worker.chat(ALPHA).status == 200
    backend.close()
    assert worker.chat(ALPHA).status == 503
    again = Backend(backend.port)
    assert until(lambda: worker.chat(ALPHA).status == 200)
    again.close()


@pytest.mark.parametrize("end", [Peer.close, Peer.reset], ids=["closed", "reset"])
def test_an_engine_that_dies_before_it_answers_is_502(
    worker: Worker, alpha: Backend, end: Callable[[Peer], None]
) -> None:
    def script(backend: Backend, peer: Peer) -> None:
        backend.read_request(peer)
        end(peer)

    alpha.plays(script)
    response = worker.chat(ALPHA)
    assert (response.status, code_of(response), response.get(b"retry-after")) == (502, "engine_lost", b"1")
    assert len(alpha.requests) == 1, "it was not sent again"


def test_a_stale_connection_is_replaced_once_and_only_if_nobody_read_the_request(
    worker: Worker, alpha: Backend
) -> None:
    served: list[Peer] = []

    def script(backend: Backend, peer: Peer) -> None:
        served.append(peer)
        backend.read_request(peer)
        peer.send(ok(b"{}"))
        if len(served) == 1 and peer.sock.recv(1, socket.MSG_PEEK):  # something came, and nobody reads it
            peer.reset()

    alpha.plays(script)
    assert worker.chat(ALPHA).status == 200
    assert worker.chat(ALPHA).status == 200
    assert len(alpha.requests) == len(served) == 2


def test_a_request_that_was_read_is_not_sent_again(worker: Worker, alpha: Backend) -> None:
    def script(backend: Backend, peer: Peer) -> None:
        backend.read_request(peer)
        peer.send(ok(b"{}"))
        backend.read_request(peer)
        peer.close()

    alpha.plays(script)
    assert worker.chat(ALPHA).status == 200
    assert worker.chat(ALPHA).status == 502
    assert len(alpha.requests) == 2


def test_a_stream_that_dies_gets_an_error_event_and_no_end(worker: Worker, alpha: Backend) -> None:
    taken = threading.Event()

    def script(backend: Backend, peer: Peer) -> None:
        backend.read_request(peer)
        peer.send(SSE_HEAD + event(0) + event(1))
        assert taken.wait(DEADLINE)  # a reset takes back what the worker has not read
        peer.reset()

    alpha.plays(script)
    client = worker.client()
    client.send(post(STREAM))
    assert client.read_until(event(1)).split(b"\r\n\r\n", 1)[1] == event(0) + event(1)
    taken.set()
    rest = client.read_all()
    assert b'data: {"error": ' in rest
    assert b"[DONE]" not in rest
    assert not rest.endswith(b"0\r\n\r\n")


def test_a_stream_that_dies_within_an_event_is_just_cut(worker: Worker, alpha: Backend) -> None:
    def script(backend: Backend, peer: Peer) -> None:
        backend.read_request(peer)
        peer.send(SSE_HEAD + event(0) + b"40\r\ndata: {")
        time.sleep(0.05)
        peer.close()

    alpha.plays(script)
    client = worker.client()
    client.send(post(STREAM))
    assert client.read_all().endswith(event(0) + b"40\r\ndata: {")


def test_an_anthropic_stream_gets_anthropics_error(worker: Worker, alpha: Backend) -> None:
    def script(backend: Backend, peer: Peer) -> None:
        backend.read_request(peer)
        peer.send(SSE_HEAD + chunk(b"event: ping\ndata: {}\n\n"))
        time.sleep(0.05)
        peer.close()

    alpha.plays(script)
    client = worker.client()
    client.send(post(STREAM, path=b"/v1/messages"))
    assert b'event: error\ndata: {"type": "error", "error": {' in client.read_all()


def test_an_answer_of_known_length_that_stops_is_cut(worker: Worker, alpha: Backend) -> None:
    def script(backend: Backend, peer: Peer) -> None:
        backend.read_request(peer)
        peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
        time.sleep(0.05)
        peer.close()

    alpha.plays(script)
    client = worker.client()
    client.send(post(ALPHA))
    raw = client.read_all()
    assert raw.endswith(b"\r\n\r\nhalf")


def test_an_answer_that_ends_with_its_connection_is_reset_where_it_was_cut(worker: Worker, alpha: Backend) -> None:
    taken = threading.Event()

    def script(backend: Backend, peer: Peer) -> None:
        backend.read_request(peer)
        peer.send(b"HTTP/1.1 200 OK\r\n\r\nhalf")
        assert taken.wait(DEADLINE)
        peer.reset()

    alpha.plays(script)
    client = worker.client()
    client.send(post(ALPHA))
    client.read_until(b"half")
    taken.set()
    with pytest.raises(ConnectionResetError):
        client.read_all()


HOSTILE = {
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}x",
    "two equal lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
    "length and coding": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a length that is none": b"HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\n{}",
    "an unknown coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunks in HTTP/1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a bad chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "an endless header": b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 20_000,
    "a folded line": b"HTTP/1.1 200 OK\r\nX-A: b\r\n c\r\n\r\n",
    "a bare LF": b"HTTP/1.1 200 OK\r\nX-A: b\nContent-Length: 0\r\n\r\n",
    "a NUL": b"HTTP/1.1 200 OK\r\nX-A: \x00\r\n\r\n",
    "a bad status": b"HTTP/1.1 2000 OK\r\n\r\n",
    "no HTTP": b"hello\r\n\r\n",
    "a flood of interim responses": b"HTTP/1.1 102 Processing\r\n\r\n" * 1000,
    "an upgrade that nobody asked for": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
}


@pytest.mark.parametrize("raw", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_answer_is_never_a_clean_200(worker: Worker, alpha: Backend, raw: bytes) -> None:
    def script(backend: Backend, peer: Peer) -> None:
        backend.read_request(peer)
        peer.send(raw)

    alpha.plays(script)
    client = worker.client()
    client.send(post(ALPHA))
    message = read_message(client)
    while message.status == 102:
        message = read_message(client)
    assert (message.status, code_of(message)) == (502, "bad_response")


def test_a_bad_chunk_in_the_middle_is_a_visible_cut(worker: Worker, alpha: Backend) -> None:
    taken = threading.Event()

    def script(backend: Backend, peer: Peer) -> None:
        backend.read_request(peer)
        peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        if taken.wait(DEADLINE):
            peer.send(b"3\r\nabcd\r\n0\r\n\r\n")

    alpha.plays(script)
    client = worker.client()
    client.send(post(ALPHA))
    client.read_until(b"3\r\nabc\r\n")
    taken.set()
    assert client.read_all() == b"", "neither the chunk nor an end"


def test_what_follows_an_answer_never_reaches_a_client(worker: Worker, alpha: Backend) -> None:
    for framed in (ok(b"{}"), SSE_HEAD + DONE):
        alpha.answers(framed + ok(b"poison"))
        client = worker.client()
        for _ in range(2):
            client.send(post(ALPHA))
            assert b"poison" not in read_message(client).body
        assert len(alpha.connections) == 2, "the connection was not used again"


def test_an_early_answer_ends_the_upload(worker: Worker, alpha: Backend) -> None:
    def script(backend: Backend, peer: Peer) -> None:
        peer.read_until(b"\r\n\r\n")
        peer.send(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n")
        peer.ended()

    alpha.plays(script)
    client = worker.client()
    client.send(post(b'{"model":"alpha","x":"' + b"y" * 9_000_000 + b'"}')[:600_000])
    response = read_message(client)
    assert (response.status, response.get(b"connection")) == (413, b"close")


def test_an_engine_on_a_unix_socket(start: Start, backend: Backend) -> None:
    worker = start(a_model("alpha", 1, endpoint=Endpoint("127.0.0.1", 1, "@nothing")))
    assert worker.chat(ALPHA).status == 503
    worker.stop()
    path = worker.plan.instance.run_dir / "engine.sock"
    backend.listener.close()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    backend.serve_on(listener)
    worker = start(a_model("alpha", 1, endpoint=Endpoint("127.0.0.1", 1, str(path))))
    assert worker.chat(ALPHA).status == 200
    assert backend.requests[0].get(b"host") == b"localhost"


def test_an_engine_that_takes_no_connection_at_its_unix_socket_is_503(start: Start, short_dir: Path) -> None:
    path = str(short_dir / "engine")
    with socket.socket(socket.AF_UNIX) as hung, socket.socket(socket.AF_UNIX) as first:
        hung.bind(path)
        hung.listen(0)
        first.connect(path)
        worker = start(a_model("alpha", 1, endpoint=Endpoint("127.0.0.1", 1, path)))
        response = worker.chat(ALPHA)
        assert (response.status, code_of(response)) == (503, "model_not_ready")
        assert until(lambda: b"alpha cannot be reached" in worker.log.read_bytes())


class Ending(asyncio.Protocol):
    """Says when its transport is closed for good."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()

    def connection_lost(self, exc: Exception | None) -> None:
        asyncio.get_running_loop().call_soon(self.ended.set)


def test_a_connection_that_is_closed_here_was_reset() -> None:
    async def ask() -> bool:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            address = listener.getsockname()
            transport, protocol = await asyncio.get_running_loop().create_connection(Ending, *address)
            assert not was_reset(transport)
            transport.abort()
            await protocol.ended.wait()
            reset_on_close(transport)
            return was_reset(transport)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(ask())


def test_an_engine_that_closes_each_connection_at_once_leaves_nobody_waiting(worker: Worker, alpha: Backend) -> None:
    alpha.plays(lambda _, peer: peer.close())
    for _ in range(50):
        assert worker.chat(b'{"model":"alpha"}').status in {502, 503}


def test_a_connection_on_which_something_came_is_not_used_again(worker: Worker, alpha: Backend) -> None:
    """Even what came in the very moment in which the next request is sent, which the worker has not read yet."""

    def script(backend: Backend, peer: Peer) -> None:
        backend.read_request(peer)
        peer.send(ok(b"first"))
        go.wait()
        peer.send(ok(b"nobody's"))
        done.set()
        backend.read_request(peer)

    go, done = threading.Event(), threading.Event()
    alpha.plays(script)
    client = worker.client()
    client.send(post(b'{"model":"alpha"}'))
    assert read_message(client).body == b"first"
    os.kill(worker.process.pid, signal.SIGSTOP)  # so that both wait when it goes on
    try:
        client.send(post(b'{"model":"alpha"}'))
        alpha.script = serve_always(ok(b"second"))
        go.set()
        assert done.wait(DEADLINE)
    finally:
        os.kill(worker.process.pid, signal.SIGCONT)
    assert read_message(client).body == b"second"
