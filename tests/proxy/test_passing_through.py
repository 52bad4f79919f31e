"""What the client and the engine see of each other: everything but hop-by-hop."""

from __future__ import annotations

import pytest

from tests.proxy.conftest import Worker
from tests.proxy.scripted import (
    DONE,
    SSE_HEAD,
    Backend,
    Peer,
    chunk,
    event,
    get,
    ok,
    post,
    read_message,
)

ALPHA = b'{"model":"alpha"}'


def test_body_and_path_and_query_arrive_as_they_were_sent(worker: Worker, alpha: Backend) -> None:
    body = b'{ "x": NaN, "model" :"alpha", "text":"\\u00e9\xc3\xa9" }'
    worker.ask(post(body, path=b"/v1/chat/completions?a=1&b=%20&a=2"))
    (seen,) = alpha.requests
    assert seen.start == b"POST /v1/chat/completions?a=1&b=%20&a=2 HTTP/1.1"
    assert seen.raw_body == body


def test_response_arrives_as_it_was_sent(worker: Worker, alpha: Backend) -> None:
    alpha.answers(
        b"HTTP/1.1 201 Quite Fine\r\nContent-Type: text/html\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n"
        b"X-Odd:   spaced \r\nRetry-After: 7\r\nContent-Length: 5\r\n\r\n<b>\xff\x00"
    )
    response = worker.chat(ALPHA)
    assert response.start == b"HTTP/1.1 201 Quite Fine"
    assert response.body == b"<b>\xff\x00"
    assert response.all(b"set-cookie") == [b"a=1", b"b=2"]
    assert response.get(b"content-type") == b"text/html"
    assert response.get(b"retry-after") == b"7"
    assert response.get(b"x-odd") == b"spaced"
    assert response.get(b"x-vllm-circus-error") is None


@pytest.mark.parametrize("status", [400, 404, 422, 429, 500, 503])
def test_an_engines_error_passes_unchanged(worker: Worker, alpha: Backend, status: int) -> None:
    body = b'{"error":{"message":"mine","code":%d}}' % status
    alpha.answers(
        b"HTTP/1.1 %d X\r\ncontent-length: %d\r\nx-vllm-circus-error: fake\r\n\r\n%b" % (status, len(body), body)
    )
    response = worker.chat(b'{"model":"alpha","stream":true}')
    assert (response.status, response.body) == (status, body)
    assert response.get(b"x-vllm-circus-error") is None


def test_hop_by_hop_fields_and_those_that_connection_names_stay_here(worker: Worker, alpha: Backend) -> None:
    worker.chat(
        ALPHA,
        b"Connection: close, X-Private",
        b"X-Private: 1",
        b"Keep-Alive: timeout=5",
        b"Proxy-Authorization: secret",
        b"TE: trailers",
        b"Upgrade: h2c",
        b"X-Public: 2",
    )
    (seen,) = alpha.requests
    names = {name.lower() for name, _ in seen.fields}
    assert not names & {b"x-private", b"keep-alive", b"proxy-authorization", b"te", b"upgrade", b"connection"}
    assert seen.get(b"x-public") == b"2"


def test_hop_by_hop_fields_of_the_response_stay_here(worker: Worker, alpha: Backend) -> None:
    alpha.answers(ok(b"{}", b"Connection: X-Inner", b"X-Inner: 1", b"Keep-Alive: timeout=5", b"X-Outer: 2"))
    response = worker.chat(ALPHA)
    assert response.get(b"x-inner") is None
    assert response.get(b"keep-alive") is None
    assert response.get(b"x-outer") == b"2"


def test_the_clients_key_is_never_forwarded(worker: Worker, alpha: Backend) -> None:
    worker.chat(ALPHA, b"Authorization: Bearer sk-mine", b"x-api-key: sk-mine")
    (seen,) = alpha.requests
    assert seen.get(b"authorization") is None
    assert seen.get(b"x-api-key") is None


def test_headers_for_the_engine(worker: Worker, alpha: Backend) -> None:
    worker.chat(
        ALPHA,
        b"X-Request-Id: abc-1",
        b"traceparent: 00-1-2-01",
        b"X-Forwarded-For: 1.2.3.4",
        b"X-Forwarded-Proto: https",
    )
    (seen,) = alpha.requests
    assert seen.get(b"host") == b"127.0.0.1:%d" % alpha.port
    assert seen.get(b"x-request-id") == b"abc-1"
    assert seen.get(b"traceparent") == b"00-1-2-01"
    assert seen.get(b"x-forwarded-for") == b"1.2.3.4, 127.0.0.1"
    assert seen.get(b"x-forwarded-proto") == b"https"


def test_a_request_id_is_made_and_told_where_the_client_gives_none(worker: Worker, alpha: Backend) -> None:
    response = worker.chat(ALPHA)
    (seen,) = alpha.requests
    made = seen.get(b"x-request-id")
    assert made is not None
    assert len(made) == 32
    assert response.get(b"x-request-id") == made


def test_a_request_id_of_the_engine_wins_in_the_response(worker: Worker, alpha: Backend) -> None:
    alpha.answers(ok(b"{}", b"X-Request-Id: engines"))
    assert worker.chat(ALPHA).get(b"x-request-id") == b"engines"


def test_exactly_one_framing_goes_upstream(worker: Worker, alpha: Backend) -> None:
    worker.chat(ALPHA)
    worker.ask(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        b'a;ext="1"\r\n{"model":"\r\n7\r\nalpha"}\r\n0\r\nX-Trailer: 1\r\n\r\n'
    )
    by_length, by_chunks = alpha.requests
    assert by_length.get(b"content-length") == b"17"
    assert by_length.get(b"transfer-encoding") is None
    assert by_chunks.get(b"content-length") is None
    assert by_chunks.raw_body == b'a;ext="1"\r\n{"model":"\r\n7\r\nalpha"}\r\n0\r\nX-Trailer: 1\r\n\r\n'


def test_each_event_of_a_stream_is_flushed_when_it_comes(worker: Worker, alpha: Backend) -> None:
    import threading

    seen = threading.Event()

    def script(backend: Backend, peer: Peer) -> None:
        backend.read_request(peer)
        peer.send(SSE_HEAD)
        for number in range(3):
            peer.send(event(number))
            assert seen.wait(5)
            seen.clear()
        peer.send(DONE)

    alpha.plays(script)
    client = worker.client()
    client.send(post(b'{"model":"alpha","stream":true}'))
    head = client.read_until(b"\r\n\r\n")
    assert b"x-accel-buffering: no" in head
    for number in range(3):
        assert client.read_until(b"\n\n\r\n") == event(number)
        seen.set()
    assert client.read_until(b"0\r\n\r\n") == DONE


def test_chunks_and_trailers_of_a_response_arrive_as_they_were_sent(worker: Worker, alpha: Backend) -> None:
    body = b"3;a=b\r\nabc\r\n" + chunk(b"x" * 5000) + b"0\r\nX-Sum: 1\r\n\r\n"
    alpha.answers(b"HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n" + body)
    assert worker.chat(ALPHA).raw_body == body


def test_a_client_of_http_1_0_gets_no_chunks(worker: Worker, alpha: Backend) -> None:
    alpha.answers(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n")
    client = worker.client()
    client.send(b"POST /v1/completions HTTP/1.0\r\nContent-Length: 17\r\n\r\n" + ALPHA)
    raw = client.read_all()
    assert b"transfer-encoding" not in raw.lower()
    assert raw.endswith(b"\r\n\r\nabcdef")


def test_keep_alive_of_http_1_0_is_honoured_where_asked_for(worker: Worker, alpha: Backend) -> None:
    client = worker.client()
    for _ in range(2):
        client.send(b"POST /v1/completions HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 17\r\n\r\n" + ALPHA)
        response = read_message(client)
        assert response.get(b"connection") == b"keep-alive"
    assert response.body == b'{"ok":true}'


def test_a_response_without_length_ends_with_its_connection(worker: Worker, alpha: Backend) -> None:
    def script(backend: Backend, peer: Peer) -> None:
        backend.read_request(peer)
        peer.send(b"HTTP/1.0 200 OK\r\nServer: old\r\n\r\nall of it")
        peer.close()

    alpha.plays(script)
    response = worker.chat(ALPHA)
    assert response.get(b"connection") == b"close"
    assert response.body == b"all of it"


@pytest.mark.parametrize("status", [204, 304])
def test_responses_that_have_no_body(worker: Worker, alpha: Backend, status: int) -> None:
    alpha.answers(b"HTTP/1.1 %d X\r\nETag: y\r\n\r\n" % status)
    client = worker.client()
    for _ in range(2):
        client.send(post(ALPHA))
        assert read_message(client).status == status
    assert len(alpha.connections) == 1


def test_interim_responses_pass_and_continue_does_not(worker: Worker, alpha: Backend) -> None:
    alpha.answers(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + ok(b"{}"))
    client = worker.client()
    client.send(post(ALPHA))
    early = read_message(client)
    assert (early.status, early.get(b"link")) == (103, b"x")
    assert read_message(client).status == 200


def test_expect_100_continue_is_answered_before_the_body(worker: Worker, alpha: Backend) -> None:
    client = worker.client()
    client.send(post(ALPHA, b"Expect: 100-continue")[: -len(ALPHA)])
    assert client.read_until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.send(ALPHA)
    assert read_message(client).status == 200
    assert alpha.requests[0].get(b"expect") is None


def test_pipelined_requests_are_answered_in_order(worker: Worker, alpha: Backend, beta: Backend) -> None:
    client = worker.client()
    client.send(post(ALPHA) + post(b'{"model":"beta"}') + get(b"/nope") + post(b'{"model":"none"}') + post(ALPHA))
    bodies = [read_message(client) for _ in range(5)]
    assert [message.status for message in bodies] == [200, 200, 404, 404, 200]
    assert [bodies[0].body, bodies[1].body, bodies[4].body] == [b'{"ok":true}', b"beta", b'{"ok":true}']


def test_a_request_in_tiny_pieces(worker: Worker, alpha: Backend) -> None:
    client = worker.client()
    for byte in post(ALPHA):
        client.send(bytes([byte]))
    assert read_message(client).status == 200
    assert alpha.requests[0].body == ALPHA


def test_connections_are_reused_on_both_sides(worker: Worker, alpha: Backend) -> None:
    client = worker.client()
    for _ in range(5):
        client.send(post(ALPHA))
        assert read_message(client).status == 200
    assert len(alpha.connections) == 1


def test_connection_close_is_honoured_and_told(worker: Worker, alpha: Backend) -> None:
    client = worker.client()
    client.send(post(ALPHA, b"Connection: close"))
    assert read_message(client).get(b"connection") == b"close"
    assert client.ended()


def test_a_half_closed_client_gets_its_answer(worker: Worker, alpha: Backend) -> None:
    client = worker.client()
    client.send(post(ALPHA))
    client.half_close()
    assert read_message(client).body == b'{"ok":true}'
    assert client.ended()


def test_a_half_closed_client_gets_a_late_answer_too(worker: Worker, alpha: Backend) -> None:
    import time

    def script(backend: Backend, peer: Peer) -> None:
        backend.read_request(peer)
        time.sleep(0.8)
        peer.send(ok(b"late"))

    alpha.plays(script)
    client = worker.client()
    client.send(post(ALPHA))
    client.half_close()
    message = read_message(client)
    while message.status == 100:
        message = read_message(client)
    assert message.body == b"late"


def test_an_empty_line_before_a_request_is_overlooked(worker: Worker, alpha: Backend) -> None:
    assert worker.ask(b"\r\n" + post(ALPHA)).status == 200


def test_an_absolute_target_is_taken(worker: Worker, alpha: Backend) -> None:
    assert worker.ask(post(ALPHA, path=b"http://other:1/v1/completions?x=1")).status == 200
    assert alpha.requests[0].start == b"POST /v1/completions?x=1 HTTP/1.1"


def test_a_large_body_goes_on_before_it_is_whole(worker: Worker, alpha: Backend) -> None:
    body = b'{"model":"alpha","prompt":"' + b"x" * 3_000_000 + b'"}'
    client = worker.client()
    client.send(post(body)[:2_000_000])
    from tests.proxy.scripted import until

    assert until(lambda: len(alpha.connections) == 1)
    client.send(post(body)[2_000_000:])
    assert read_message(client).status == 200
    assert alpha.requests[0].body == body


def test_a_large_body_whose_model_comes_last(worker: Worker, alpha: Backend) -> None:
    body = b'{"messages":[{"content":"' + b'\\"x\\n' * 300_000 + b'"}],"model":"alpha"}'
    assert worker.chat(body).status == 200
    assert alpha.requests[0].body == body
