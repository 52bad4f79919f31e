"""Requests that must not reach an engine: doubtful frames, limits, foreign paths."""

from __future__ import annotations

import json
import threading
import time
from contextlib import suppress

import pytest

from tests.proxy.conftest import Start, Worker, a_model
from tests.proxy.scripted import DEADLINE, Backend, Peer, get, post, read_message, until
from vllm_circus.config.models import Limits

ALPHA = b'{"model":"alpha"}'
HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"

DOUBTFUL = {
    "content-length and transfer-encoding": HEAD + b"Content-Length: 17\r\nTransfer-Encoding: chunked\r\n\r\n" + ALPHA,
    "transfer-encoding and content-length": HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 17\r\n\r\n" + ALPHA,
    "two different lengths": HEAD + b"Content-Length: 17\r\nContent-Length: 18\r\n\r\n" + ALPHA,
    "a list of lengths": HEAD + b"Content-Length: 17, 17\r\n\r\n" + ALPHA,
    "a signed length": HEAD + b"Content-Length: +17\r\n\r\n" + ALPHA,
    "a negative length": HEAD + b"Content-Length: -1\r\n\r\n" + ALPHA,
    "a hexadecimal length": HEAD + b"Content-Length: 0x11\r\n\r\n" + ALPHA,
    "a length with an underscore": HEAD + b"Content-Length: 1_7\r\n\r\n" + ALPHA,
    "an endless length": HEAD + b"Content-Length: 99999999999999999999\r\n\r\n" + ALPHA,
    "an empty length": HEAD + b"Content-Length:\r\n\r\n" + ALPHA,
    "a length spelled with an underscore": HEAD + b"Content_Length: 17\r\n\r\n" + ALPHA,
    "a coding spelled with an underscore": HEAD + b"Transfer_Encoding: chunked\r\nContent-Length: 17\r\n\r\n" + ALPHA,
    "two codings": HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "an unknown coding": HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "a quoted coding": HEAD + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n',
    "identity": HEAD + b"Transfer-Encoding: identity\r\nContent-Length: 17\r\n\r\n" + ALPHA,
    "a coding twice": HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a coding with a vertical tab": HEAD + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "a folded coding": HEAD + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "a folded line": HEAD + b"X-A: b\r\n c\r\nContent-Length: 17\r\n\r\n" + ALPHA,
    "a blank before the colon": HEAD + b"Content-Length : 17\r\n\r\n" + ALPHA,
    "a blank before the name": HEAD + b" Content-Length: 17\r\n\r\n" + ALPHA,
    "a name that is no token": HEAD + b"X-(A): 1\r\nContent-Length: 17\r\n\r\n" + ALPHA,
    "an empty name": HEAD + b": 1\r\nContent-Length: 17\r\n\r\n" + ALPHA,
    "a line without a colon": HEAD + b"garbage\r\nContent-Length: 17\r\n\r\n" + ALPHA,
    "a NUL in a value": HEAD + b"X-A: a\x00b\r\nContent-Length: 17\r\n\r\n" + ALPHA,
    "a bell in a value": HEAD + b"X-A: a\x07b\r\nContent-Length: 17\r\n\r\n" + ALPHA,
    "a bare CR in a value": HEAD + b"X-A: a\rb\r\nContent-Length: 17\r\n\r\n" + ALPHA,
    "a bare LF as line end": HEAD + b"X-A: a\nContent-Length: 17\r\n\r\n" + ALPHA,
    "only bare LFs": b"POST /v1/completions HTTP/1.1\nHost: x\nContent-Length: 17\n\n" + ALPHA,
    "a bare CR as line end": HEAD + b"X-A: a\rContent-Length: 17\r\n\r\n" + ALPHA,
    "no host": b"POST /v1/completions HTTP/1.1\r\nContent-Length: 17\r\n\r\n" + ALPHA,
    "two hosts": HEAD + b"Host: y\r\nContent-Length: 17\r\n\r\n" + ALPHA,
    "a host with a blank": b"POST /v1/completions HTTP/1.1\r\nHost: x y\r\nContent-Length: 17\r\n\r\n" + ALPHA,
    "a host with a path": b"POST /v1/completions HTTP/1.1\r\nHost: x/y\r\nContent-Length: 17\r\n\r\n" + ALPHA,
    "chunks in HTTP/1.0": b"POST /v1/completions HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two blanks in the request line": b"POST  /v1/completions HTTP/1.1\r\nHost: x\r\n\r\n",
    "a tab in the request line": b"POST\t/v1/completions HTTP/1.1\r\nHost: x\r\n\r\n",
    "a fragment": b"POST /v1/completions#x HTTP/1.1\r\nHost: x\r\nContent-Length: 17\r\n\r\n" + ALPHA,
    "a control byte in the target": b"POST /v1/completions\x01 HTTP/1.1\r\nHost: x\r\n\r\n",
    "a target without a slash": b"POST v1/completions HTTP/1.1\r\nHost: x\r\n\r\n",
    "no version": b"GET /health\r\n\r\n",
    "a lower-case version": b"GET /health http/1.1\r\nHost: x\r\n\r\n",
    "a TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "an HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a chunk size with a sign": CHUNKED + b"+11\r\n" + ALPHA + b"\r\n0\r\n\r\n",
    "a chunk size with 0x": CHUNKED + b"0x11\r\n" + ALPHA + b"\r\n0\r\n\r\n",
    "a chunk size with a blank": CHUNKED + b"11 \r\n" + ALPHA + b"\r\n0\r\n\r\n",
    "a chunk size after a blank": CHUNKED + b" 11\r\n" + ALPHA + b"\r\n0\r\n\r\n",
    "a chunk size with an underscore": CHUNKED + b"1_1\r\n" + ALPHA + b"\r\n0\r\n\r\n",
    "an empty chunk size": CHUNKED + b"\r\n" + ALPHA + b"\r\n0\r\n\r\n",
    "a huge chunk size": CHUNKED + b"10000000000000011\r\n" + ALPHA + b"\r\n0\r\n\r\n",
    "a chunk line that ends with LF": CHUNKED + b"11\n" + ALPHA + b"\r\n0\r\n\r\n",
    "a chunk extension with LF": CHUNKED + b"11;a\nb\r\n" + ALPHA + b"\r\n0\r\n\r\n",
    "a chunk longer than it says": CHUNKED + b"10\r\n" + ALPHA + b"\r\n0\r\n\r\n",
    "a chunk that ends with LF": CHUNKED + b"11\r\n" + ALPHA + b"\n0\r\n\r\n",
    "a trailer that is a header": CHUNKED + b"11\r\n" + ALPHA + b"\r\n0\r\nContent-Length: 3\r\n\r\n",
    "a trailer without a colon": CHUNKED + b"11\r\n" + ALPHA + b"\r\n0\r\ngarbage\r\n\r\n",
}


@pytest.mark.parametrize("raw", DOUBTFUL.values(), ids=DOUBTFUL)
def test_a_doubtful_frame_is_refused_and_the_engine_sees_nothing(worker: Worker, alpha: Backend, raw: bytes) -> None:
    client = worker.client()
    client.send(raw + get(b"/health"))
    response = read_message(client)
    assert response.status in {400, 505}
    assert response.get(b"connection") == b"close"
    assert client.ended()
    assert client.rest == b"", "a hidden second request was answered"
    assert alpha.connections == []


def test_a_malformed_length_of_the_right_kind_names_the_fault(worker: Worker) -> None:
    response = worker.ask(DOUBTFUL["content-length and transfer-encoding"])
    error = json.loads(response.body)["error"]
    assert error["type"] == "invalid_request_error"
    assert error["code"] == response.get(b"x-vllm-circus-error").decode() == "bad_request"  # type: ignore[union-attr]
    assert "Content-Length" in error["message"]


SECRET_PATHS = [
    b"/sleep",
    b"/wake_up",
    b"/is_sleeping",
    b"/pause",
    b"/resume",
    b"/abort_requests",
    b"/collective_rpc",
    b"/reset_prefix_cache",
    b"/reset_mm_cache",
    b"/server_info",
    b"/scale_elastic_ep",
    b"/v1/load_lora_adapter",
    b"/v1/unload_lora_adapter",
    b"/docs",
    b"/openapi.json",
    b"//sleep",
    b"/./sleep",
    b"/v1/../sleep",
    b"/v1/%2e%2e/sleep",
    b"/%73leep",
    b"/SLEEP",
    b"/sleep/",
    b"/sleep;x=1",
    b"/v1/completions;/../../sleep",
    b"/v1/completions/../../sleep",
    b"/v1/responses/../../sleep",
    b"/v1/responses/%2e%2e/sleep",
    b"/v1//completions",
    b"/V1/completions",
    b"/v1/completions/",
    b"/v1/completions%00",
    b"/v1\\completions",
    b"http://127.0.0.1/sleep",
    b"http://x//sleep",
]


@pytest.mark.parametrize("path", SECRET_PATHS)
def test_routes_that_are_not_public_are_not_found_in_any_spelling(worker: Worker, alpha: Backend, path: bytes) -> None:
    for request in (post(ALPHA, path=path), get(path), post(ALPHA, path=path + b"?model=alpha")):
        response = worker.ask(request)
        assert (response.status, response.get(b"x-vllm-circus-error")) == (404, b"unknown_path")
    assert alpha.connections == []


def test_methods_that_a_path_does_not_take(worker: Worker, alpha: Backend) -> None:
    response = worker.get(b"/v1/completions")
    assert (response.status, response.get(b"allow")) == (405, b"POST")
    for method in (b"TRACE", b"PUT", b"BREW"):
        assert worker.ask(get(b"/health", method=method)).status == 405
    assert worker.ask(b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n").status == 400
    assert alpha.connections == []


BAD_BODIES = {
    "empty": b"",
    "not json": b"hello",
    "a list": b'["model","alpha"]',
    "a string": b'"alpha"',
    "half an object": b'{"model":"alpha"',
    "something after it": b'{"model":"alpha"} x',
    "bad utf-8 in the name": b'{"model":"\xff"}',
    "a number as model": b'{"model":5}',
    "an object as model": b'{"model":{"a":1}}',
    "two models": b'{"model":"alpha","model":"beta"}',
    "two models, one spelled with escapes": b'{"model":"alpha","\\u006dodel":"beta"}',
    "too deep": b'{"model":"alpha","x":' + b"[" * 5000 + b"]" * 5000 + b"}",
}


@pytest.mark.parametrize("body", BAD_BODIES.values(), ids=BAD_BODIES)
def test_bodies_that_name_no_model_readably(worker: Worker, alpha: Backend, beta: Backend, body: bytes) -> None:
    client = worker.client()
    client.send(post(body))
    response = read_message(client)
    assert response.status == 400
    assert json.loads(response.body)["error"]["type"] == "invalid_request_error"
    client.send(post(ALPHA))
    assert read_message(client).status == 200, "the connection is good for the next request"
    assert len(alpha.requests) == 1
    assert beta.connections == []


def test_two_models_far_apart_reach_no_engine_whole(worker: Worker, alpha: Backend) -> None:
    body = b'{"model":"alpha","x":"' + b"y" * 2_000_000 + b'","model":"beta"}'
    response = worker.chat(body)
    assert (response.status, response.get(b"x-vllm-circus-error")) == (400, b"duplicate_model")
    assert alpha.requests == []


@pytest.fixture
def small(start: Start, backend: Backend) -> Worker:
    """A worker with small limits of size."""
    limits = Limits(max_request_line=256, max_header_bytes=1024, max_header_count=8, max_body_bytes=2048)
    return start(a_model("alpha", backend.port), limits=limits)


@pytest.fixture
def strict(start: Start, backend: Backend) -> Worker:
    """A worker with small limits of time."""
    return start(a_model("alpha", backend.port), limits=Limits(header_timeout=1.0, keep_alive=1.0))


def test_limits_of_size(small: Worker, backend: Backend) -> None:
    many = b"".join(b"X-%d: 1\r\n" % number for number in range(9))
    cases = {
        b"GET /" + b"a" * 300 + b" HTTP/1.1\r\nHost: x\r\n\r\n": 414,
        b"GET /" + b"a" * 5000: 414,
        b"GET / HTTP/1.1\r\nHost: x\r\nX-A: " + b"a" * 1100 + b"\r\n\r\n": 431,
        b"GET / HTTP/1.1\r\nHost: x\r\nX-A: " + b"a" * 9000: 431,
        b"GET / HTTP/1.1\r\nHost: x\r\n" + many + b"\r\n": 431,
        post(b" " * 2049): 413,
        post(b"")[:-4].replace(b"Content-Length: 0", b"Content-Length: 99999999\r\nExpect: 100-continue\r\n\r\n"): 413,
        CHUNKED + b"801\r\n" + b" " * 0x801 + b"\r\n0\r\n\r\n": 413,
        CHUNKED + b"1;" + b"x" * 1000 + b"\r\n \r\n" + (b"1;" + b"x" * 1000 + b"\r\n \r\n") * 200: 400,
    }
    for raw, status in cases.items():
        client = small.client()
        client.send(raw)
        assert read_message(client).status == status
        client.close()
    assert backend.connections == []


def test_a_refused_body_does_not_take_the_answer_away(small: Worker) -> None:
    client = small.client()
    client.send(post(b"x" * 2_000_000)[:-1])
    assert read_message(client).status == 413


def test_limits_of_time(strict: Worker, backend: Backend) -> None:
    used = strict.client()
    used.send(get(b"/health"))
    slow = strict.client()
    slow.send(b"GET /health HTTP/1.1\r\nHo")
    body = strict.client()
    body.send(post(ALPHA)[:-3])
    idle = strict.client()
    assert read_message(used).status == 200
    assert read_message(slow).status == 408
    assert read_message(body).status == 408
    for client in (slow, body, idle, used):
        assert client.ended()
        assert client.rest == b""
    assert backend.connections == []


def test_a_drip_of_header_bytes_does_not_buy_time(strict: Worker) -> None:
    client = strict.client()
    client.sock.setblocking(False)
    begun = time.monotonic()
    answer = b""
    while not answer and time.monotonic() - begun < DEADLINE:
        client.send(b"X")
        time.sleep(0.05)
        with suppress(BlockingIOError):
            answer = client.sock.recv(65536)
    assert answer.startswith(b"HTTP/1.1 408 ")


def test_connections_above_the_cap_wait_and_are_served_later(start: Start, backend: Backend) -> None:
    worker = start(a_model("alpha", backend.port), limits=Limits(max_connections=4))
    first = [worker.client() for _ in range(4)]
    for client in first:
        client.send(get(b"/health"))
        assert read_message(client).status == 200
    late = worker.client()
    late.send(get(b"/health"))
    assert not late.ended(0.3)
    assert late.rest == b""
    first[0].close()
    assert read_message(late).status == 200
    assert until(lambda: b"accepting pauses" in worker.log.read_bytes())


def test_connect_to_a_page_with_no_body_but_with_two_requests_in_it(worker: Worker, alpha: Backend) -> None:
    hidden = get(b"/sleep")
    worker.ask(b"GET /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (len(hidden), hidden))
    assert alpha.connections == []


def ask_without_reading(client: Peer, asked: bytes) -> int:
    """Send until the other side takes no more; returns the bytes sent."""
    client.sock.settimeout(1)
    sent = 0
    with suppress(TimeoutError):
        while sent < 64 << 20:
            sent += client.sock.send(asked * 100)
    client.sock.settimeout(DEADLINE)
    return sent


def test_who_asks_without_reading_is_not_listened_to(worker: Worker) -> None:
    client = worker.client()
    before = worker.memory()
    asked = get(b"/nowhere")
    assert ask_without_reading(client, asked) < 40 << 20
    assert worker.memory() - before < 8 << 20
    for _ in range(1000):  # and is heard again as it reads
        assert read_message(client).status == 404


def test_pipelined_refusals_that_wait_are_answered_after_a_half_close(worker: Worker) -> None:
    client = worker.client()
    asked = get(b"/nowhere")
    sent = ask_without_reading(client, asked)
    client.half_close()
    for _ in range(sent // len(asked)):
        assert read_message(client).status == 404
    assert client.ended()


def test_a_page_that_takes_no_model_from_its_body_takes_no_large_one(worker: Worker) -> None:
    head = b"GET /health HTTP/1.1\r\nHost: localhost\r\n"
    assert worker.ask(head + b"Content-Length: 65537\r\n\r\n").status == 413
    assert worker.ask(head + b"Transfer-Encoding: chunked\r\n\r\n20000\r\n" + b"x" * 0x20000).status == 413
    assert worker.ask(head + b"Content-Length: 2\r\n\r\n{}").status == 200


def test_an_upload_of_the_costliest_kind_holds_nobody_else_up(worker: Worker) -> None:
    body = b'{"a":[' + b"[[0],[{}]]," * 500_000 + b'0],"model":"nobody"}'
    hog, other = worker.client(), worker.client()
    sender = threading.Thread(target=hog.send, args=(post(body),))
    sender.start()
    slowest = 0.0
    while sender.is_alive():
        begun = worker.cpu_seconds()
        other.send(get(b"/nowhere"))
        assert read_message(other).status == 404
        slowest = max(slowest, worker.cpu_seconds() - begun)
    assert read_message(hog).status == 404
    assert 0 < slowest < 0.4  # it takes most of a second, and was one piece
