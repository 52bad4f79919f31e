"""What is changed in requests, byte by byte, and what is left as it came."""

from __future__ import annotations

import socket

import pytest

from tests.proxy.conftest import Start
from tests.proxy.engines import BROKEN, engines, nobody, replicas
from tests.proxy.scripted import SSE_HEAD, Backend, Message, Peer, event, ok, post, read_message, until
from vllm_circus.config.models import Ejection, RequestRules

RULES = RequestRules(defaults={"temperature": 0.2}, limits={"max_tokens": 100})
BODY = b'{"model": "chat", "max_tokens": 5000, "messages": [ ]}'
EDITED = b'{"model": "chat", "max_tokens": 100, "messages": [ ],"temperature":0.2}'


def chunked(*pieces: bytes, path: bytes = b"/v1/chat/completions") -> bytes:
    head = b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n" % path
    return head + b"".join(b"%x;a=b\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\nX-T: 1\r\n\r\n"


def framing(request: Message) -> tuple[list[bytes], list[bytes]]:
    return request.all(b"content-length"), request.all(b"transfer-encoding")


@pytest.mark.parametrize(
    ("body", "edited"),
    [
        (BODY, EDITED),
        (b'{"model":"chat","max_tokens":100,"temperature":1}', b'{"model":"chat","max_tokens":100,"temperature":1}'),
        (
            b'{"max_tokens":1e9,"model":"chat","temperature":null}',
            b'{"max_tokens":100,"model":"chat","temperature":null}',
        ),
        (b'{"model":"chat","x":{"max_tokens":5000}}', b'{"model":"chat","x":{"max_tokens":5000},"temperature":0.2}'),
    ],
)
def test_only_what_is_configured_changes(start: Start, backend: Backend, body: bytes, edited: bytes) -> None:
    worker = start(*replicas(backend.port, request=RULES))
    assert worker.chat(body).status == 200
    assert backend.requests[0].body == edited
    assert framing(backend.requests[0]) == ([b"%d" % len(edited)], [])


@pytest.mark.parametrize(
    ("path", "is_edited"),
    [
        (b"/v1/completions", True),
        (b"/v1/responses", True),
        (b"/v1/messages", True),
        (b"/invocations", True),
        (b"/v1/embeddings", False),
        (b"/tokenize", False),
    ],
)
def test_what_generates_is_edited(start: Start, backend: Backend, path: bytes, is_edited: bool) -> None:
    worker = start(*replicas(backend.port, request=RULES))
    assert worker.ask(post(BODY, path=path)).status == 200
    assert backend.requests[0].body == (EDITED if is_edited else BODY)


def test_a_large_body_is_held_until_it_is_whole(start: Start, backend: Backend) -> None:
    worker = start(*replicas(backend.port, request=RULES))
    body = BODY[:-1] + b',"pad":"' + b"x" * 1_000_000 + b'"}'
    message = post(body)
    client = worker.client()
    client.send(message[:-2])
    assert worker.get(b"/health").status == 200
    assert backend.connections == [], "a rule may concern what comes last"
    client.send(message[-2:])
    assert read_message(client).status == 200
    assert backend.requests[0].body == body.replace(b"5000", b"100")[:-1] + b',"temperature":0.2}'


def test_nothing_of_a_large_body_is_kept_while_its_answer_streams(start: Start, backend: Backend) -> None:
    body = BODY[:-1] + b',"pad":"' + b"x" * 3_000_000 + b'"}'

    def script(backend: Backend, peer: Peer) -> None:
        peer.read_until(b"\r\n\r\n")
        left = len(body) - len(peer.rest)
        while left > 100:
            left -= len(peer.sock.recv(1 << 20))
        peer.send(SSE_HEAD + event(1))
        peer.read_all()

    backend.plays(script)
    worker = start(*replicas(backend.port, request=RULES))
    before = worker.memory()
    for _ in range(20):
        client = worker.client()
        client.send(post(body))
        client.read_until(b"\n\n\r\n")
    assert worker.memory() - before < 30 << 20, "twenty times three megabytes would be twice that"


def test_chunks_become_one_length(start: Start, backend: Backend) -> None:
    worker = start(*replicas(backend.port, request=RULES))
    assert worker.ask(chunked(BODY[:7], BODY[7:30], BODY[30:])).status == 200
    assert backend.requests[0].body == EDITED
    assert framing(backend.requests[0]) == ([b"%d" % len(EDITED)], [])


@pytest.mark.parametrize("dead", [0, 1])
@pytest.mark.parametrize("message", [post(BODY), chunked(BODY)])
def test_what_moves_to_another_replica_is_edited_once(
    start: Start, backend: Backend, dead: int, message: bytes
) -> None:
    with nobody() as port:
        ports = [backend.port]
        ports.insert(dead, port)
        worker = start(*replicas(*ports, request=RULES))
        assert [worker.ask(message).status for _ in range(2)] == [200, 200]
        assert until(lambda: b"cannot be reached" in worker.log.read_bytes())
    assert [request.body for request in backend.requests] == [EDITED] * 2


def test_what_was_sent_on_a_connection_that_ended_is_sent_again_as_edited(start: Start, backend: Backend) -> None:
    """A kept connection that was reset before a byte: nobody had read it."""
    worker = start(*replicas(backend.port, request=RULES))

    def script(backend: Backend, peer: Peer) -> None:
        backend.read_request(peer)
        peer.send(ok(b"{}"))
        if len(backend.connections) == 1:
            peer.sock.recv(1, socket.MSG_PEEK)
            peer.reset()

    backend.plays(script)
    assert worker.ask(chunked(BODY)).status == 200
    assert worker.ask(chunked(BODY)).status == 200
    assert [request.body for request in backend.requests] == [EDITED] * 2


@pytest.mark.parametrize("body", [b'{"model":"chat",}', b'{"model":"chat"} x', b'{"model":"chat","x":[1}'])
def test_what_cannot_be_edited_is_400_and_goes_nowhere(start: Start, backend: Backend, body: bytes) -> None:
    worker = start(*replicas(backend.port, request=RULES))
    response = worker.chat(body)
    assert response.status == 400
    assert response.get(b"x-vllm-circus-error") is not None
    assert backend.requests == []
    assert worker.chat(BODY).status == 200


def test_a_trial_is_not_lost_to_bodies_that_cannot_be_edited(start: Start) -> None:
    """They come alone until the time is over: the first of them claims the trial."""
    with engines(2) as (bad, good):
        worker = start(*replicas(bad.port, good.port, request=RULES, ejection=Ejection(failures=1, seconds=0.2)))
        bad.answers(BROKEN)
        assert until(lambda: worker.chat(BODY).status == 500)
        bad.answers(ok(b"back"))
        count = iter(range(200))
        assert until(lambda: worker.chat(b'{"model":"chat",}').status == 400 and next(count) > 50)
        assert until(lambda: worker.chat(BODY).body == b"back")
