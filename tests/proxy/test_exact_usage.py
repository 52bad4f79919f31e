"""The usage of every stream is counted, and a client that did not ask for it sees what it would have seen."""

from __future__ import annotations

import threading

import pytest

from tests.proxy.bus import Bus, bus_of
from tests.proxy.conftest import Start, Worker, a_model
from tests.proxy.engines import engines, nobody, replicas
from tests.proxy.scripted import DONE, SSE_HEAD, Backend, Peer, chunk, event, ok, post, read_message, until
from vllm_circus.bus.messages import ModelCounts

USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":7,"total_tokens":10,"completion_tokens":3}}\n\n'
TOLD = b'"stream_options":{"include_usage":true}'
ASKS = b'{"model":"chat","stream":true}'
TEXT = b"".join(b'data: {"choices":[{"delta":{"content":"%d"}}]}\n\n' % number for number in range(3))
SEEN = TEXT + b"data: [DONE]\n\n"


def stream(*pieces: bytes) -> bytes:
    """These pieces of an event stream, a chunk each."""
    return SSE_HEAD + b"".join(map(chunk, pieces)) + b"0\r\n\r\n"


def begun(start: Start, backend: Backend, answer: bytes) -> Worker:
    backend.answers(answer)
    return start(a_model("chat", backend.port), exact_usage=True)


def counted(bus: Bus, requests: int, prompt: int, completion: int) -> bool:
    """Whether these numbers are told."""

    def told() -> bool:
        counts = bus.told[-1].models["chat"] if bus.told else ModelCounts()
        return (counts.requests, counts.prompt_tokens, counts.completion_tokens) == (requests, prompt, completion)

    return until(told)


@pytest.mark.parametrize(
    "answer",
    [
        stream(TEXT, USAGE, b"data: [DONE]\n\n"),
        stream(TEXT + USAGE + b"data: [DONE]\n\n"),
        stream(TEXT + USAGE[:20], USAGE[20:], b"data: [DONE]\n\n"),
        stream(TEXT, USAGE + b"data: [DONE]\n", b"\n"),
    ],
)
def test_the_payload_is_that_of_a_stream_without_it_and_the_counts_are_exact(
    start: Start, backend: Backend, answer: bytes
) -> None:
    worker = begun(start, backend, answer)
    with bus_of(worker) as bus:
        client = worker.client()
        for number in range(1, 3):
            client.send(post(ASKS))
            response = read_message(client)
            assert (response.status, response.body) == (200, SEEN)
            assert response.get(b"transfer-encoding") == b"chunked"
            assert counted(bus, number, 7 * number, 3 * number)
        assert bus.told[-1].models["chat"].streams == 2
    assert [request.body for request in backend.requests] == [b'{"model":"chat","stream":true,' + TOLD + b"}"] * 2
    assert len(backend.connections) == 1, "and its connection is kept"


def test_each_event_goes_on_as_it_comes(start: Start, backend: Backend) -> None:
    worker = start(a_model("chat", backend.port), exact_usage=True)

    def script(backend: Backend, peer: Peer) -> None:
        backend.read_request(peer)
        peer.send(SSE_HEAD + event(0))
        for number in range(1, 5):
            read[number - 1].wait(10)
            peer.send(event(number))
        read[4].wait(10)
        peer.send(chunk(USAGE) + DONE)

    read = [threading.Event() for _ in range(5)]
    backend.plays(script)
    client = worker.client()
    client.send(post(ASKS))
    for number in range(5):
        assert b'"%d"' % number in client.read_until(b"\n\n\r\n")
        read[number].set()
    assert client.read_until(b"0\r\n\r\n").endswith(DONE)


def test_who_asks_for_it_sees_it_as_it_came(start: Start, backend: Backend) -> None:
    answer = stream(TEXT, USAGE, b"data: [DONE]\n\n")
    worker = begun(start, backend, answer)
    body = b'{"model":"chat","stream":true,"stream_options":{"include_usage":true}}'
    with bus_of(worker) as bus:
        response = worker.chat(body)
        assert response.raw_body == answer[len(SSE_HEAD) :], "chunk by chunk"
        assert counted(bus, 1, 7, 3)
    assert backend.requests[0].body == body


def test_what_is_no_stream_is_left_alone(start: Start, backend: Backend) -> None:
    answer = ok(b'{"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3}}')
    worker = begun(start, backend, answer)
    with bus_of(worker) as bus:
        assert worker.chat(b'{"model":"chat"}').body == answer.partition(b"\r\n\r\n")[2]
        assert counted(bus, 1, 7, 3)
    assert backend.requests[0].body == b'{"model":"chat"}'


@pytest.mark.parametrize("framed", [False, True])
def test_the_engines_refusal_passes_as_it_came(start: Start, backend: Backend, framed: bool) -> None:
    body = b'{"error":{"message":"no"},"choices":[],"usage":{}}'
    head = b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n"
    framing = b"transfer-encoding: chunked\r\n\r\n" if framed else b"content-length: %d\r\n\r\n" % len(body)
    raw = chunk(body) + b"0\r\n\r\n" if framed else body
    worker = begun(start, backend, head + framing + raw)
    response = worker.chat(ASKS)
    assert (response.status, response.raw_body) == (400, raw)


def test_an_http_1_0_client_sees_the_same(start: Start, backend: Backend) -> None:
    worker = begun(start, backend, stream(TEXT, USAGE, b"data: [DONE]\n\n"))
    client = worker.client()
    client.send(post(ASKS).replace(b"HTTP/1.1", b"HTTP/1.0"))
    head, _, body = client.read_all().partition(b"\r\n\r\n")
    assert body == SEEN
    assert b"transfer-encoding" not in head.lower()


@pytest.mark.parametrize("after", [b"", USAGE, USAGE[:30]])
def test_a_stream_that_breaks_never_ends_well(start: Start, backend: Backend, after: bytes) -> None:
    worker = start(a_model("chat", backend.port), exact_usage=True)

    def script(backend: Backend, peer: Peer) -> None:
        backend.read_request(peer)
        peer.send(SSE_HEAD + chunk(TEXT) + (chunk(after) if after else b""))
        peer.close()

    backend.plays(script)
    client = worker.client()
    client.send(post(ASKS))
    seen = client.read_all()
    assert b"[DONE]" not in seen
    assert not seen.endswith(b"0\r\n\r\n")
    assert TEXT in seen
    assert USAGE not in seen


def test_an_error_of_the_engine_in_mid_stream_passes(start: Start, backend: Backend) -> None:
    error = b'data: {"error":{"message":"out of memory","type":"InternalServerError","code":500}}\n\n'
    worker = begun(start, backend, stream(TEXT, error, b"data: [DONE]\n\n"))
    assert worker.chat(ASKS).body == TEXT + error + b"data: [DONE]\n\n"


def test_it_is_hidden_also_where_the_request_moved_to_another_replica(start: Start, backend: Backend) -> None:
    backend.answers(stream(TEXT, USAGE, b"data: [DONE]\n\n"))
    with nobody() as one, nobody() as two:
        worker = start(*replicas(one, backend.port, two), exact_usage=True)
        for _ in range(3):
            assert worker.chat(ASKS).body == SEEN
        assert until(lambda: b"cannot be reached" in worker.log.read_bytes())


def test_it_is_hidden_of_a_fallback_as_well(start: Start, backend: Backend) -> None:
    backend.answers(stream(TEXT, USAGE, b"data: [DONE]\n\n"))
    with nobody() as dead:
        worker = start(a_model("chat", dead, fallback="small"), a_model("small", backend.port), exact_usage=True)
        assert worker.chat(ASKS).body == SEEN


def test_other_streams_are_not_touched(start: Start) -> None:
    """Those of /v1/responses tell their usage by themselves."""
    with engines(1) as (engine,):
        answer = stream(b'event: response.completed\ndata: {"response":{"usage":{"input_tokens":7}}}\n\n', USAGE)
        engine.answers(answer)
        worker = start(a_model("chat", engine.port), exact_usage=True)
        response = worker.ask(post(ASKS, path=b"/v1/responses"))
        assert response.raw_body == answer[len(SSE_HEAD) :]
        assert engine.requests[0].body == ASKS
