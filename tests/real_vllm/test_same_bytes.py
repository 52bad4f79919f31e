"""Both ends of one and the same exchange, byte by byte: what the client sends and gets, what the engine gets and sends.

Two answers to one question may differ, since a busy engine puts several tokens into one event; so the engine behind
the tap answers once, and what left it is compared with what arrived.
"""

from __future__ import annotations

import json
import socket
from typing import Any
from uuid import uuid4

import pytest

from tests.real_vllm.fleet import BY_HAND, Fleet

pytestmark = pytest.mark.timeout(900)

CHAT = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 16, "temperature": 0, "seed": 1}
COMPLETION = {"prompt": "Hi", "max_tokens": 16, "temperature": 0, "seed": 1}
RESPONSE = {"input": "Hi", "max_output_tokens": 16, "temperature": 0}
TOO_LONG = {"prompt": "x " * 2000}

#: Path, request and status.
EXCHANGES: dict[str, tuple[str, dict[str, Any], int]] = {
    "a chat": ("/v1/chat/completions", CHAT, 200),
    "a streamed chat": ("/v1/chat/completions", {**CHAT, "stream": True}, 200),
    "a completion": ("/v1/completions", COMPLETION, 200),
    "a streamed completion": ("/v1/completions", {**COMPLETION, "stream": True}, 200),
    "a response": ("/v1/responses", RESPONSE, 200),
    "a streamed response": ("/v1/responses", {**RESPONSE, "stream": True}, 200),
    "a message": ("/v1/messages", CHAT, 200),
    "a streamed message": ("/v1/messages", {**CHAT, "stream": True}, 200),
    "tokens": ("/tokenize", {"prompt": "Hi"}, 200),
    "too long a prompt": ("/v1/completions", TOO_LONG, 400),
    "too long a prompt, streamed": ("/v1/completions", {**TOO_LONG, "stream": True}, 400),
    "a message without messages": ("/v1/messages", {"messages": [], "max_tokens": 5}, 400),
    "a wrong type": ("/v1/chat/completions", {**CHAT, "max_tokens": "many"}, 400),
    "a kind of request that it cannot answer": ("/v1/embeddings", {"input": "Hi"}, 404),
    "a large chat": ("/v1/chat/completions", {**CHAT, "chat_template_kwargs": {"ballast": "x" * (3 << 20)}}, 200),
}
#: Lines that a client's library sends, with what nobody else would: the same field twice, blanks, strange cases.
LINES = [
    b"Accept: application/json",
    b"Content-Type: application/json",
    b"User-Agent: OpenAI/Python 3.54.0",
    b"x-stainless-Lang:python",
    b"X-Twice: one",
    b"X-Twice:   two ",
    b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    b"Accept-Encoding: gzip, deflate",
]
#: What is each one's own matter, beside what the proxy adds.
OF_THE_HOP = (b"connection", b"content-length", b"transfer-encoding")


@pytest.mark.parametrize("what", EXCHANGES)
def test_the_bytes_are_the_same_at_both_ends(fleet: Fleet, what: str) -> None:
    path, asked, status = EXCHANGES[what]
    body = json.dumps({"model": BY_HAND, **asked}).encode()
    request_id = uuid4().hex.encode()
    head, answer = exchange(fleet.port, request(path, body, request_id) + body)
    sent, own = fleet.tapped(request_id.decode())
    assert_same_request(sent, path, body, request_id)
    own_head, _, own_body = own.partition(b"\r\n\r\n")
    assert answer == own_body
    assert_same_head(head, own_head, request_id)
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert (b"text/event-stream" in head) == ("streamed" in what and status == 200)


def assert_same_request(sent: bytes, path: str, body: bytes, request_id: bytes) -> None:
    """The engine got the client's lines in their order, and its body; the fields that the proxy writes are its own."""
    head, _, sent_body = sent.partition(b"\r\n\r\n")
    assert sent_body == body
    first, *lines = head.split(b"\r\n")
    assert first == b"POST %b HTTP/1.1" % path.encode()
    assert [line for line in lines if line in LINES] == LINES
    added = {name: value for name, value in map(field, lines) if (name + b": " + value) not in LINES}
    assert added.pop(b"x-request-id") == request_id
    assert added.pop(b"content-length") == b"%d" % len(body)
    assert b"authorization" not in added  # the client's key is not for the engine, and this engine has none


def assert_same_head(head: bytes, own: bytes, request_id: bytes) -> None:
    """The client got the engine's status and lines in their order, and the same framing."""
    first, *lines = head.split(b"\r\n")
    own_first, *own_lines = own.split(b"\r\n")
    assert first == own_first
    passed = [line for line in own_lines if field(line)[0] not in OF_THE_HOP]
    assert lines[: len(passed)] == passed
    fields, own_fields = dict(map(field, lines)), dict(map(field, own_lines))
    for name in OF_THE_HOP[1:]:
        assert fields.get(name) == own_fields.get(name)
    added = {name: value for name, value in fields.items() if name not in own_fields}
    assert added.pop(b"x-request-id") == request_id
    assert added.pop(b"connection") == b"close"
    assert added == ({b"x-accel-buffering": b"no"} if b"text/event-stream" in head else {})


def request(path: str, body: bytes, request_id: bytes) -> bytes:
    """The head of a request."""
    lines = [
        b"POST %b HTTP/1.1" % path.encode(),
        b"Host: somewhere",
        *LINES,
        b"Content-Length: %d" % len(body),
        b"Authorization: Bearer unused",
        b"X-Request-Id: " + request_id,
        b"Connection: close",
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def exchange(port: int, data: bytes) -> tuple[bytes, bytes]:
    """Send these bytes: head and body of the answer, as they come over the wire."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(data)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    return head, body


def field(line: bytes) -> tuple[bytes, bytes]:
    """Lower-case name and value of a header line."""
    name, _, value = line.partition(b":")
    return name.lower(), value.strip()
