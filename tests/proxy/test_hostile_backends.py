"""Engines that answer against the rules: a 502 or a cut that can be seen, and never an answer to somebody else.

What is wrong before the status went on is a 502; what is wrong later ends the connection before the body's end. After
each case the same client and another one ask again, and get what is theirs.
"""

from __future__ import annotations

import json
import re
import threading
import time

import pytest

from tests.proxy.conftest import Worker
from tests.proxy.hostile_answers import BODILESS, CHUNKED, CHUNKS, EARLY, HEAD, HEADS, LYING, SECOND, TOO_MUCH
from tests.proxy.scripted import (
    DEADLINE,
    DONE,
    SSE_HEAD,
    Backend,
    Message,
    Peer,
    Script,
    event,
    get,
    ok,
    post,
    read_message,
)

ALPHA = b'{"model":"alpha"}'


def once(
    *pieces: bytes, end: bool = False, sent: threading.Event | None = None, taken: threading.Event | None = None
) -> Script:
    """The first connection gets these bytes in so many writes, and `sent` is set; every later one a good answer.

    Between the writes it waits until `taken` is set, where the worker has to see them apart.
    """

    def script(backend: Backend, peer: Peer) -> None:
        first = peer is backend.connections[0]
        backend.read_request(peer)
        if first:
            for piece in pieces[:-1]:
                peer.send(piece)
                if taken is None:
                    time.sleep(0.02)
                elif not taken.wait(DEADLINE):
                    return
            peer.send(pieces[-1])
            if sent is not None:
                sent.set()
            if end:
                peer.close()
        while True:
            if not first:
                peer.send(ok(b"mine"))
            backend.read_request(peer)

    return script


def assert_nobody_is_poisoned(worker: Worker) -> None:
    client = worker.client()
    for _ in range(2):
        client.send(post(ALPHA))
        assert read_message(client).body == b"mine"


@pytest.mark.parametrize("raw", HEADS.values(), ids=HEADS)
def test_a_wrong_head_is_a_502(worker: Worker, alpha: Backend, raw: bytes) -> None:
    alpha.plays(once(raw))
    assert_bad_response(worker)
    assert_nobody_is_poisoned(worker)


def assert_bad_response(worker: Worker) -> None:
    client = worker.client()
    client.send(post(ALPHA))
    message = read_message(client)
    while message.status == 103:
        message = read_message(client)
    assert message.status == 502
    assert json.loads(message.body)["error"]["code"] == "bad_response"
    client.send(post(ALPHA))
    assert read_message(client).body == b"mine", "the client's connection is good for the next request"


@pytest.mark.parametrize("body", CHUNKS.values(), ids=CHUNKS)
def test_wrong_chunks_are_a_502_at_once_and_a_cut_later(worker: Worker, alpha: Backend, body: bytes) -> None:
    alpha.plays(once(CHUNKED + body))
    assert_bad_response(worker)
    taken = threading.Event()
    alpha.plays(once(CHUNKED + b"3\r\nabc\r\n", body, taken=taken))
    client = worker.client()
    client.send(post(ALPHA))
    raw = client.read_until(b"3\r\nabc\r\n")
    taken.set()
    assert raw.startswith(HEAD)
    assert not (raw + client.read_all()).endswith(b"0\r\n\r\n")
    assert_nobody_is_poisoned(worker)


@pytest.mark.parametrize("pieces", LYING.values(), ids=LYING)
def test_an_answer_that_promised_more_is_cut(worker: Worker, alpha: Backend, pieces: tuple[bytes, bytes]) -> None:
    alpha.plays(once(*pieces, end=True))
    client = worker.client()
    client.send(post(ALPHA))
    message = re.split(rb"\r\n\r\n", client.read_all(), maxsplit=1)
    assert message[0].startswith(HEAD.strip())
    length = re.search(rb"(?i)content-length: (\d+)", message[0])
    assert len(message[1]) < int(length[1]) if length else not message[1].endswith(b"0\r\n\r\n")
    assert b"[DONE]" not in message[1]
    assert_nobody_is_poisoned(worker)


@pytest.mark.parametrize(
    "part", [b"", b"H", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Le", b"HTTP/1.1 103 E\r\n\r\n"]
)
def test_an_engine_that_leaves_within_its_head_is_502(worker: Worker, alpha: Backend, part: bytes) -> None:
    alpha.plays(once(part, end=True))
    client = worker.client()
    client.send(post(ALPHA))
    message = read_message(client)
    message = read_message(client) if message.status == 103 else message
    assert (message.status, json.loads(message.body)["error"]["code"]) == (502, "engine_lost")
    assert_nobody_is_poisoned(worker)


@pytest.mark.parametrize("pieces", TOO_MUCH.values(), ids=TOO_MUCH)
def test_what_comes_behind_an_answer_belongs_to_nobody(
    worker: Worker, alpha: Backend, pieces: tuple[bytes, ...]
) -> None:
    sent = threading.Event()
    alpha.plays(once(*pieces, sent=sent))
    client = worker.client()
    client.send(post(ALPHA))
    assert read_message(client).body == b"abc"
    assert sent.wait(DEADLINE)  # who asks before it came cannot know it from an answer
    client.send(post(ALPHA))
    assert read_message(client).body == b"mine"
    assert_nobody_is_poisoned(worker)


@pytest.mark.parametrize("raw", BODILESS.values(), ids=BODILESS)
def test_a_body_where_there_is_none_reaches_nobody(worker: Worker, alpha: Backend, raw: bytes) -> None:
    head = raw.index(b"\r\n\r\n") + 4
    for pieces in ((raw,), (raw[:head], raw[head:])):
        sent = threading.Event()
        alpha.plays(once(*pieces, sent=sent))
        client = worker.client()
        client.send(post(ALPHA))
        first = read_message(client)
        assert first.status in {200, 204, 304}
        assert first.body == b""
        assert sent.wait(DEADLINE)
        client.send(post(ALPHA))
        assert read_message(client).body == b"mine"
        assert_nobody_is_poisoned(worker)


@pytest.mark.parametrize("raw", EARLY.values(), ids=EARLY)
def test_an_answer_before_the_request_is_whole_ends_both_connections(
    worker: Worker, alpha: Backend, raw: bytes
) -> None:
    """What is left of the request can never be taken for the next one."""
    hidden = get(b"/version?model=alpha", b"X-Case: hidden")

    def script(backend: Backend, peer: Peer) -> None:
        if peer is backend.connections[0]:
            peer.read_until(b"\r\n\r\n")
            peer.send(raw)
            peer.ended()
            return
        while True:
            backend.read_request(peer)
            peer.send(ok(b"mine"))

    alpha.plays(script)
    client = worker.client()
    whole = post(b'{"model":"alpha","x":"' + b"y" * 600_000 + hidden + b'"}')
    client.send(whole[:400_000])
    message = read_message(client)
    message = read_message(client) if message.status == 103 else message
    assert (message.body, message.get(b"connection")) == (b"early", b"close")
    rest = threading.Thread(target=send_quietly, args=(client, whole[400_000:]))
    rest.start()
    assert client.ended()
    rest.join()
    assert client.rest == b""
    assert_nobody_is_poisoned(worker)
    assert [request.get(b"x-case") for request in alpha.requests] == [None, None]


def send_quietly(client: Peer, data: bytes) -> None:
    try:
        client.send(data)
    except OSError:
        return


def test_an_answer_before_any_request_is_nobodys(worker: Worker, alpha: Backend) -> None:
    """An engine that talks first on a fresh connection: where that is seen in time the connection is given up."""

    def script(backend: Backend, peer: Peer) -> None:
        peer.send(SECOND)
        while True:
            backend.read_request(peer)
            peer.send(ok(b"mine"))

    alpha.plays(script)
    answers = [worker.chat(ALPHA) for _ in range(4)]
    assert {answer.status for answer in answers} <= {200, 502, 503}


def test_many_small_pieces_are_one_answer(worker: Worker, alpha: Backend) -> None:
    """The whole grammar, one byte a write."""
    raw = HEAD + b"X-A: 1\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n2\r\nde\r\n0\r\nX-T: 1\r\n\r\n"

    def script(backend: Backend, peer: Peer) -> None:
        while True:
            backend.read_request(peer)
            for byte in raw:
                peer.send(bytes([byte]))

    alpha.plays(script)
    client = worker.client()
    for _ in range(2):
        client.send(post(ALPHA))
        message: Message = read_message(client)
        assert (message.body, message.raw_body) == (b"abcde", raw.partition(b"\r\n\r\n")[2])
    assert len(alpha.connections) == 1


def test_a_stream_with_an_answer_behind_it_ends_where_it_ends(worker: Worker, alpha: Backend) -> None:
    alpha.plays(once(SSE_HEAD + event(0), event(1) + DONE + SECOND))
    client = worker.client()
    client.send(post(b'{"model":"alpha","stream":true}') + post(ALPHA))
    assert read_message(client).raw_body == event(0) + event(1) + DONE
    assert read_message(client).body == b"mine"
