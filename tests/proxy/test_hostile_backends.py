"""Engines that answer against the rules: a 502 or a cut that can be seen, and never an answer to somebody else.

What is wrong before the status went on is a 502; what is wrong later ends the connection before the body's end. After
each case the same client and another one ask again, and get what is theirs.
"""

from __future__ import annotations

import itertools
import json
import re
import threading
import time

import pytest

from tests.proxy.conftest import Worker
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
HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
SECOND = ok(b"poison")


def once(*pieces: bytes, end: bool = False, sent: threading.Event | None = None) -> Script:
    """The first connection gets these bytes in so many writes, and `sent` is set; every later one a good answer."""

    def script(backend: Backend, peer: Peer) -> None:
        first = peer is backend.connections[0]
        backend.read_request(peer)
        if first:
            for piece in pieces[:-1]:
                peer.send(piece)
                time.sleep(0.02)
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


def whole_heads() -> dict[str, bytes]:
    """Answers that are wrong in their head or in the first piece of their body."""
    cases = {}
    lengths = (
        b"+2",
        b"-2",
        b"0x2",
        b"2, 2",
        b"2,3",
        b"2 2",
        b"",
        b"2;",
        b'"2"',
        b"9" * 19,
        b"2\x00",
        b"\x0b2",
        b"1e1",
        b"2_0",
    )
    for length in lengths:
        cases[f"Content-Length: {length!r}"] = HEAD + b"Content-Length: " + length + b"\r\n\r\n{}"
    codings = (
        b"chunked, chunked",
        b"identity",
        b"chunked, gzip",
        b"x",
        b"",
        b"\x0bchunked",
        b"chunked;q=1",
        b",chunked",
    )
    for coding in codings:
        cases[f"Transfer-Encoding: {coding!r}"] = (
            HEAD + b"Transfer-Encoding: " + coding + b"\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
        )
    framings = (
        b"Content-Length: 2",
        b"Content-Length: 5",
        b"Transfer-Encoding: chunked",
        b"transfer-encoding: x",
        b"content-length: x",
    )
    for one, other in itertools.permutations(framings, 2):
        cases[f"{one!r} and {other!r}"] = HEAD + one + b"\r\n" + other + b"\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    for field in (
        b"Content-Length : 2",
        b" Content-Length: 2",
        b"Content-Length",
        b": 2",
        b"Content Length: 2",
        b"X-A: \r",
    ):
        cases[f"the line {field!r}"] = HEAD + field + b"\r\nContent-Length: 2\r\n\r\n{}"
    for status in (b"000", b"099", b"600", b"999", b"20", b"2000", b"-20", b"2x0", b"+200", b"\xb200", b""):
        cases[f"the status {status!r}"] = b"HTTP/1.1 " + status + b" OK\r\nContent-Length: 2\r\n\r\n{}"
    versions = (
        b"HTTP/2.0",
        b"HTTP/1.2",
        b"HTTP/0.9",
        b"http/1.1",
        b"HTTP/11",
        b"HTTP/1",
        b"HTTPS/1.1",
        b"ICY",
        b" HTTP/1.1",
        b"",
    )
    for version in versions:
        cases[f"the version {version!r}"] = version + b" 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    for garbage in (
        b"garbage",
        b"\x00",
        b"\r\n",
        b"\n",
        b"<html>\r\n\r\n",
        b"2\r\n{}\r\n0\r\n\r\n",
        b"\xff" * 64,
        b"{}",
    ):
        cases[f"{garbage[:20]!r} before the status line"] = garbage + ok(b"{}")
    return cases


HEADS = whole_heads() | {
    "HTTP/0.9": b"<html>everything is fine</html>\r\n\r\n",
    "the preface of HTTP/2": b"\x00\x00\x12\x04\x00\x00\x00\x00\x00" + b"\x00" * 18 + b"\r\n\r\n",
    "a request for an answer": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "a TLS alert": b"\x15\x03\x01\x00\x02\x02\x46\r\n\r\n",
    "CR for line ends": b"HTTP/1.1 200 OK\rContent-Length: 2\r\r{}\r\n\r\n",
    "a NUL in the reason": b"HTTP/1.1 200 O\x00K\r\nContent-Length: 2\r\n\r\n{}",
    "a NUL in a name": HEAD + b"X\x00A: 1\r\nContent-Length: 2\r\n\r\n{}",
    "a line end in a value": HEAD + b"X-A: a\rSet-Cookie: b\r\nContent-Length: 2\r\n\r\n{}",
    "a folded length": HEAD + b"Content-Length:\r\n 2\r\n\r\n{}",
    "an endless line": HEAD + b"X-A: " + b"a" * 70_000,
    "an endless status line": b"HTTP/1.1 200 " + b"a" * 70_000,
    "seventeen interim answers": b"HTTP/1.1 103 Early Hints\r\n\r\n" * 17 + ok(b"{}"),
    "an interim answer that is malformed": b"HTTP/1.1 103 Early Hints\r\nX A: 1\r\n\r\n" + ok(b"{}"),
    "a switch to HTTP/2": b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
}
CHUNKS = {
    "a size with 0x": b"0x2\r\n{}\r\n0\r\n\r\n",
    "a size with a sign": b"+2\r\n{}\r\n0\r\n\r\n",
    "a size below zero": b"-2\r\n{}\r\n0\r\n\r\n",
    "a size with a blank": b"2 \r\n{}\r\n0\r\n\r\n",
    "a size that overflows": b"10000000000000002\r\n{}\r\n0\r\n\r\n",
    "no size": b"\r\n{}\r\n0\r\n\r\n",
    "an LF": b"2\n{}\n0\n\n",
    "a NUL": b"2\x00\r\n{}\r\n0\r\n\r\n",
    "an extension with an LF": b"2;a\nb\r\n{}\r\n0\r\n\r\n",
    "a trailer with a length": b"2\r\n{}\r\n0\r\nContent-Length: 5\r\n\r\n",
    "a trailer that is no field": b"2\r\n{}\r\n0\r\nhello\r\n\r\n",
    "a chunk that is too long": b"2\r\n{}{}\r\n0\r\n\r\n",
    "a chunk that is too short": b"4\r\n{}\r\n0\r\n\r\n\r\n",
    "two CRLFs behind a chunk": b"2\r\n{}\r\n\r\n0\r\n\r\n",
}


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
    alpha.plays(once(CHUNKED + b"3\r\nabc\r\n", body))
    client = worker.client()
    client.send(post(ALPHA))
    raw = client.read_all()
    assert raw.startswith(HEAD)
    assert b"3\r\nabc\r\n" in raw
    assert not raw.endswith(b"0\r\n\r\n")
    assert_nobody_is_poisoned(worker)


LYING = {
    "a length that is too long": (HEAD + b"Content-Length: 9\r\n\r\nabc", b"def"),
    "no end of chunks": (CHUNKED + b"3\r\nabc\r\n", b"3\r\ndef\r\n"),
    "half an end of chunks": (CHUNKED + b"3\r\nabc\r\n", b"0\r\n"),
    "half a chunk": (CHUNKED + b"3\r\nabc\r\n", b"9\r\ndef"),
    "half a trailer": (CHUNKED + b"3\r\nabc\r\n", b"0\r\nX-A: 1\r\n"),
    "half an event": (SSE_HEAD + event(0), event(1)[:-9]),
    "events without their end": (SSE_HEAD + event(0), event(1)),
}


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


TOO_MUCH = {
    "two answers at once": (ok(b"abc") + SECOND,),
    "two answers, one after the other": (ok(b"abc"), SECOND),
    "a length that is too short": (HEAD + b"Content-Length: 3\r\n\r\nabcpoison",),
    "a length that is too short, later": (HEAD + b"Content-Length: 3\r\n\r\nab", b"cpoison"),
    "an answer behind the last chunk": (CHUNKED + b"3\r\nabc\r\n0\r\n\r\n" + SECOND,),
    "an answer behind the last chunk, later": (CHUNKED + b"3\r\nabc\r\n0\r\n\r\n", SECOND),
    "an answer behind a trailer": (CHUNKED + b"3\r\nabc\r\n0\r\nX-A: 1\r\n\r\n", SECOND),
    "a single CRLF behind the answer": (ok(b"abc"), b"\r\n"),
    "an interim answer behind the answer": (ok(b"abc"), b"HTTP/1.1 100 Continue\r\n\r\n"),
}


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


BODILESS = {
    "204 with a body": b"HTTP/1.1 204 No Content\r\n\r\npoison",
    "204 with a length": b"HTTP/1.1 204 No Content\r\nContent-Length: 6\r\n\r\npoison",
    "204 with chunks": b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n6\r\npoison\r\n0\r\n\r\n",
    "304 with a length": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 6\r\n\r\npoison",
    "304 with an answer": b"HTTP/1.1 304 Not Modified\r\n\r\n" + SECOND,
    "an empty one with a body": HEAD + b"Content-Length: 0\r\n\r\npoison",
}


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


EARLY = {
    "a whole answer": ok(b"early"),
    "an answer of chunks": CHUNKED + b"5\r\nearly\r\n0\r\n\r\n",
    "an interim answer, then a whole one": b"HTTP/1.1 103 Early Hints\r\n\r\n" + ok(b"early"),
}


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
