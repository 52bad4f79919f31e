"""Clients that leave, engines and clients that take their time: what it costs the others."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable

import pytest

from tests.proxy.conftest import Start, Worker, a_model
from tests.proxy.scripted import (
    DEADLINE,
    SSE_HEAD,
    Backend,
    Peer,
    code_of,
    event,
    ok,
    post,
    read_message,
    until,
)
from vllm_circus.config.models import Limits

ALPHA = b'{"model":"alpha"}'
STREAM = b'{"model":"alpha","stream":true}'


def wait_for_end(backend: Backend, seen: threading.Event, first: bytes = b"") -> None:
    """A script that tells when the proxy hangs up."""

    def script(backend: Backend, peer: Peer) -> None:
        backend.read_request(peer)
        if first:
            peer.send(first)
        if peer.ended():
            seen.set()

    backend.plays(script)


@pytest.mark.parametrize("leave", [Peer.close, Peer.reset], ids=["closed", "reset"])
@pytest.mark.parametrize("body", [ALPHA, STREAM], ids=["whole", "stream"])
def test_a_client_that_leaves_before_the_first_byte_aborts_the_engine(
    worker: Worker, alpha: Backend, body: bytes, leave: Callable[[Peer], None]
) -> None:
    seen = threading.Event()
    wait_for_end(alpha, seen)
    client = worker.client()
    client.send(post(body))
    assert until(lambda: alpha.requests)
    leave(client)
    assert seen.wait(DEADLINE)


@pytest.mark.parametrize("leave", [Peer.close, Peer.reset], ids=["closed", "reset"])
def test_clients_that_leave_in_mid_stream_abort_the_engine(
    worker: Worker, alpha: Backend, leave: Callable[[Peer], None]
) -> None:
    ended: list[Peer] = []

    def script(backend: Backend, peer: Peer) -> None:
        backend.read_request(peer)
        peer.send(SSE_HEAD)
        try:
            for number in range(1000):
                peer.send(event(number))
                time.sleep(0.02)
        except OSError:
            ended.append(peer)

    alpha.plays(script)
    clients = [worker.client() for _ in range(20)]
    for client in clients:
        client.send(post(STREAM))
    for client in clients:
        client.read_until(event(1))
        leave(client)
    assert until(lambda: len(ended) == 20)  # which the engine would go on for twice as long


def test_a_client_that_leaves_in_mid_upload_reaches_no_engine(worker: Worker, alpha: Backend) -> None:
    client = worker.client()
    client.send(post(ALPHA)[:-2])
    client.close()
    assert worker.chat(ALPHA).status == 200
    assert len(alpha.connections) == 1


def test_a_client_that_leaves_while_connecting_gives_it_up(start: Start) -> None:
    full = socket.create_server(("127.0.0.1", 0), backlog=0)  # a listener that accepts nobody
    fillers = [socket.socket() for _ in range(3)]
    for filler in fillers:
        filler.setblocking(False)
        filler.connect_ex(full.getsockname())
    worker = start(a_model("alpha", full.getsockname()[1]), limits=Limits(connect_timeout=0.5))
    client = worker.client()
    client.send(post(ALPHA))
    client.reset()
    assert worker.chat(ALPHA).status == 503
    for each in (*fillers, full):
        each.close()


def test_a_burst_at_an_engine_that_accepts_nobody_is_refused_all_at_the_same_time(start: Start) -> None:
    """Few connections are opened at a time; whoever waits for its turn is given up no later than those before it."""
    full = socket.create_server(("127.0.0.1", 0), backlog=0)
    with full, socket.create_connection(full.getsockname()):  # which fills the queue
        worker = start(a_model("alpha", full.getsockname()[1]), limits=Limits(connect_timeout=3.0))
        clients = [worker.client() for _ in range(100)]
        begun = time.monotonic()
        for client in clients:
            client.send(post(ALPHA))
        assert [read_message(client).status for client in clients] == [503] * 100
        assert time.monotonic() - begun < 9  # in turns of their own it would be 12


# time


def test_a_silent_engine_is_504_where_a_limit_is_set(start: Start, backend: Backend) -> None:
    limits = Limits(response_timeout=0.3, idle_timeout=0.3)
    worker = start(a_model("alpha", backend.port), limits=limits)
    seen = threading.Event()
    wait_for_end(backend, seen)
    response = worker.chat(ALPHA)
    assert (response.status, code_of(response)) == (504, "engine_timeout")
    assert seen.wait(DEADLINE)
    seen.clear()
    wait_for_end(backend, seen, SSE_HEAD + event(0))
    client = worker.client()
    client.send(post(STREAM))
    raw = client.read_all()
    assert b"engine_timeout" in raw
    assert not raw.endswith(b"0\r\n\r\n")
    assert seen.wait(DEADLINE)


def test_slow_requests_to_one_model_delay_no_other(worker: Worker, alpha: Backend, beta: Backend) -> None:
    seen = threading.Event()
    wait_for_end(alpha, seen)
    for _ in range(100):
        worker.client().send(post(ALPHA))
    assert worker.chat(b'{"model":"beta"}').status == 200
    assert not seen.is_set(), "they all still wait"


# back-pressure


def test_stalled_readers_cost_bounded_memory_and_hold_the_engine_back(start: Start, backend: Backend) -> None:
    worker = start(a_model("alpha", backend.port))
    sent: list[int] = []
    size = 32 << 20

    def script(backend: Backend, peer: Peer) -> None:
        backend.read_request(peer)
        peer.sock.settimeout(60)
        peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
        for _ in range(size >> 16):
            peer.send(b"x" * 65536)
            sent.append(1)

    backend.plays(script)
    worker.chat(b'{"model":"nobody"}')
    before = worker.memory()
    clients = [worker.client() for _ in range(5)]
    for client in clients:
        client.send(post(ALPHA))
    assert until(lambda: len(backend.requests) == 5)
    settled = -1
    while settled != len(sent):
        settled = len(sent)
        time.sleep(0.3)
    assert len(sent) < 5 * (size >> 16)
    assert worker.memory() - before < 16 << 20
    left = size - len(clients[0].read_until(b"\r\n\r\n") and clients[0].rest)
    while left:
        left -= len(clients[0].sock.recv(min(left, 1 << 20)))  # it goes on when it is read


def test_a_slow_engine_pauses_a_large_upload(start: Start, backend: Backend) -> None:
    worker = start(a_model("alpha", backend.port))
    go_on = threading.Event()

    def script(backend: Backend, peer: Peer) -> None:
        peer.read_until(b"\r\n\r\n")
        go_on.wait(20)
        left = len(body) - len(peer.rest)
        while left:
            left -= len(peer.sock.recv(min(left, 1 << 20)))
        peer.send(ok(b"{}"))

    backend.plays(script)
    body = b'{"model":"alpha","x":"' + b"y" * (32 << 20) + b'"}'
    before = worker.memory()
    client = worker.client()
    sender = threading.Thread(target=client.send, args=(post(body),))
    sender.start()
    sender.join(1.0)
    assert sender.is_alive(), "the client is held back"
    assert worker.memory() - before < 16 << 20
    go_on.set()
    assert read_message(client).status == 200
    sender.join()
