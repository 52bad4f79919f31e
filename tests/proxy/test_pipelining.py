"""Who sends requests without waiting for answers: served in order, held to little memory, and at nobody's cost."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from tests.proxy.conftest import Start, Worker, a_model
from tests.proxy.scripted import Backend, Message, Peer, get, ok, post, read_message, until
from vllm_circus.config.models import Limits
from vllm_circus.proxy.downstream import PIPELINE_ROOM

ALPHA = b'{"model":"alpha"}'


def from_a_thread(do: Callable[[], object]) -> threading.Thread:
    """Do this until it is done, or the connection ends."""

    def run() -> None:
        with suppress(OSError):
            do()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def most_memory(worker: Worker) -> int:
    """The most resident bytes that it ever had."""
    status = Path(f"/proc/{worker.process.pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) << 10


def number_of(request: Message) -> bytes:
    """The number that ends it."""
    found = re.search(rb"(\d+)\D*$", request.body)
    return found[1] if found else b""


def echo(own: Backend, peer: Peer) -> None:
    """Answer each request with its number."""
    while True:
        peer.send(ok(number_of(own.read_request(peer))))


def test_ten_thousand_refusals_in_one_piece_hold_nobody_up(worker: Worker) -> None:
    flood = worker.client()
    sender = from_a_thread(partial(flood.send, get(b"/nope") * 100_000))
    reader = from_a_thread(flood.read_all)
    for _ in range(5):
        assert worker.get(b"/health").status == 200
    flood.close()
    sender.join()
    reader.join()


@pytest.mark.parametrize("lines", [(), (b"Connection: close",)], ids=["kept", "a connection each"])
def test_requests_that_wait_for_their_turn_are_held_in_little_memory(
    start: Start, backend: Backend, lines: tuple[bytes, ...]
) -> None:
    """Each answer makes room for what it answered, and for nothing more."""

    def script(own: Backend, peer: Peer) -> None:
        while True:
            peer.send(ok(number_of(own.read_request(peer)), *lines))

    backend.plays(script)
    worker = start(a_model("alpha", backend.port))
    assert worker.chat(ALPHA).status == 200
    before = most_memory(worker)
    client = worker.client()
    pad = b"x" * 16_000
    many = b"".join(post(b'{"model":"alpha","pad":"%b","n":%d}' % (pad, n)) for n in range(1500))
    sender = from_a_thread(partial(client.send, many))
    assert [int(read_message(client).body) for _ in range(1500)] == list(range(1500))
    sender.join()
    assert most_memory(worker) - before < 8 << 20


def test_large_bodies_between_small_requests_are_all_answered_in_order(start: Start, backend: Backend) -> None:
    """Reading pauses and goes on wherever the buffer happens to end: in a head, in a body, in a chunk."""
    backend.plays(echo)
    worker = start(a_model("alpha", backend.port))
    client = worker.client()
    requests: list[bytes] = []
    for number in range(120):
        pad = b"x" * (number * 7919 % (2 * PIPELINE_ROOM) if number % 3 else 700_000 * (number % 9 == 0))
        body = b'{"model":"alpha","pad":"%b","n":%d}' % (pad, number)
        if number % 2:
            requests.append(post(body))
        else:
            chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
            lines = b"Host: proxy\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
            requests.append(b"POST /v1/chat/completions HTTP/1.1\r\n" + lines + chunks)
        requests.append(get(b"/nope") * (number % 40))
    sender = from_a_thread(partial(client.send, b"".join(requests)))
    for number in range(120):
        assert int(read_message(client).body) == number
        for _ in range(number % 40):
            assert read_message(client).status == 404
    sender.join()


def test_a_connection_is_kept_after_a_burst_as_after_a_single_request(worker: Worker, alpha: Backend) -> None:
    client = worker.client()
    sender = from_a_thread(partial(client.send, get(b"/nope") * 5000))
    for _ in range(5000):
        assert read_message(client).status == 404
    sender.join()
    client.send(post(ALPHA))
    assert read_message(client).body == b'{"ok":true}'


def test_a_refusal_reaches_who_had_sent_much_more_and_ends_the_connection(start: Start, backend: Backend) -> None:
    """However much of what follows came with it, and although none of that is kept."""
    worker = start(a_model("alpha", backend.port), limits=Limits(header_timeout=60.0))
    client = worker.client()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n"
    sender = from_a_thread(partial(client.send, head + b"x" * 8_000_000))
    assert read_message(client).status == 413
    sender.join(8)
    assert not sender.is_alive()


def test_a_last_answer_is_not_taken_away_from_who_sent_more(worker: Worker, alpha: Backend) -> None:
    """What nobody reads any more would make the connection's end a reset, which overtakes the answer."""
    for more in (get(b"/nope"), get(b"/nope") * 10_000):
        for _ in range(10):
            client = worker.client()
            sender = from_a_thread(partial(client.send, post(ALPHA, b"Connection: close") + more))
            sender.join(0.1)
            assert client.read_all().endswith(b'{"ok":true}')
            client.close()
            sender.join()


@pytest.mark.parametrize("leave", [Peer.close, Peer.reset], ids=["closed", "reset"])
def test_a_client_that_leaves_behind_more_than_is_read_ends_its_request(
    worker: Worker, alpha: Backend, leave: Callable[[Peer], None]
) -> None:
    ended = threading.Event()

    def script(own: Backend, peer: Peer) -> None:
        own.read_request(peer)
        if peer.ended():
            ended.set()

    alpha.plays(script)
    client = worker.client()
    client.send(post(ALPHA) + get(b"/nope") * (2 * PIPELINE_ROOM // len(get(b"/nope"))))
    assert until(lambda: alpha.requests)
    leave(client)
    assert ended.wait(5)
