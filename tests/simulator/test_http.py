"""The bytes on the wire. The literal ones were read from a real server, version 0.32.0."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from .running import Running, Simulate, read_all, steady, take_apart


def test_health_is_an_empty_answer(server: Running) -> None:
    assert steady(server.raw("GET", "/health")) == (
        b"HTTP/1.1 200 OK\r\ndate: DATE\r\nserver: uvicorn\r\ncontent-length: 0\r\nvary: Origin\r\n"
        b"connection: close\r\n\r\n"
    )


def test_health_knows_no_head(server: Running) -> None:
    assert steady(server.raw("HEAD", "/health")) == (
        b"HTTP/1.1 405 Method Not Allowed\r\ndate: DATE\r\nserver: uvicorn\r\nallow: GET\r\ncontent-length: 31\r\n"
        b"content-type: application/json\r\nvary: Origin\r\nconnection: close\r\n\r\n"
    )


@pytest.mark.parametrize(
    ("method", "path", "status", "body"),
    [
        ("GET", "/nope", 404, b'{"detail":"Not Found"}'),
        ("GET", "/v1/models/first", 404, b'{"detail":"Not Found"}'),
        ("GET", "/v1/chat/completions", 405, b'{"detail":"Method Not Allowed"}'),
        ("POST", "/v1/embeddings", 404, b'{"detail":"Not Found"}'),
        ("POST", "/sleep", 404, b'{"detail":"Not Found"}'),
        ("POST", "/sim/fault", 404, b'{"detail":"Not Found"}'),
        ("GET", "/version", 200, b'{"version":"0.32.0"}'),
        ("GET", "/load", 200, b'{"server_load":0}'),
        ("POST", "/ping", 200, b""),
    ],
)
def test_paths_that_say_always_the_same(server: Running, method: str, path: str, status: int, body: bytes) -> None:
    answer = server.ask(method, path)
    assert (answer.status, answer.body) == (status, body)


def test_a_slash_too_many_is_a_redirection(server: Running) -> None:
    answer = server.ask("GET", "/health/")
    assert (answer.status, answer.headers["location"]) == (307, "http://sim/health")


def test_bytes_that_are_no_request_are_refused(server: Running) -> None:
    with server.connect() as connection:
        connection.sendall(b"GARBAGE\r\n\r\n")
        assert steady(read_all(connection)) == (
            b"HTTP/1.1 400 Bad Request\r\ndate: DATE\r\nserver: uvicorn\r\ncontent-type: text/plain; charset=utf-8\r\n"
            b"content-length: 30\r\nconnection: close\r\n\r\nInvalid HTTP request received."
        )


def test_a_connection_stays_for_further_requests_also_when_sent_ahead(server: Running) -> None:
    with server.connect() as connection:
        connection.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n" * 2 + b"GET /version HTTP/1.0\r\n\r\n")
        answers = read_all(connection)
    assert answers.count(b"HTTP/1.1 200 OK\r\n") == 3
    assert answers.endswith(b'connection: close\r\n\r\n{"version":"0.32.0"}')


def test_an_idle_connection_is_closed(simulate: Simulate) -> None:
    one = simulate(environ={"VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "1"})
    with one.connect() as connection:
        connection.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
        begun = time.monotonic()
        assert b"connection: close" not in read_all(connection)
    assert 0.9 < time.monotonic() - begun < 5


def test_a_body_that_waits_for_leave_gets_it(server: Running) -> None:
    with server.connect() as connection:
        connection.sendall(b"POST /ping HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"{}")
        assert connection.recv(100).startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_request_in_single_bytes_is_one_request(server: Running) -> None:
    body = b'{"prompt":"hi","max_tokens":1}'
    head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    with server.connect() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in head + b"%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n":
            connection.sendall(bytes([byte]))
        assert take_apart(read_all(connection)).status == 200


def test_the_request_id_comes_back_only_when_wanted(server: Running, simulate: Simulate) -> None:
    assert "x-request-id" not in server.ask("GET", "/health", headers={"X-Request-Id": "abc"}).headers
    one = simulate("--enable-request-id-headers")
    assert one.ask("GET", "/health", headers={"X-Request-Id": "abc"}).headers["x-request-id"] == "abc"
    assert len(one.ask("GET", "/health").headers["x-request-id"]) == 32


def test_a_key_guards_v1_only(simulate: Simulate) -> None:
    one = simulate("--api-key", "k1", "k2")
    assert steady(one.raw("GET", "/v1/models")) == (
        b"HTTP/1.1 401 Unauthorized\r\ndate: DATE\r\nserver: uvicorn\r\ncontent-length: 24\r\n"
        b'content-type: application/json\r\nconnection: close\r\n\r\n{"error":"Unauthorized"}'
    )
    assert one.ask("GET", "/v1/models", headers={"Authorization": "bearer k2"}).status == 200
    assert one.ask("GET", "/v1/models", headers={"Authorization": "Bearer k3"}).status == 401
    assert one.ask("GET", "/v1/nope", headers={"Authorization": "Basic k1"}).status == 401
    assert one.ask("GET", "/metrics").status == 200
    assert one.ask("POST", "/invocations", {"prompt": "hi"}).status == 200
    assert "k1" not in one.out
    assert "'api_key': '***'" in one.out


def test_a_key_may_come_from_the_environment(simulate: Simulate) -> None:
    one = simulate(environ={"VLLM_API_KEY": "secret"})
    assert one.ask("GET", "/v1/models").status == 401
    assert one.ask("GET", "/v1/models", headers={"Authorization": "Bearer secret"}).status == 200


def test_a_unix_socket_serves_as_a_port_does(simulate: Simulate, short_dir: Path) -> None:
    one = simulate("--uds", f"{short_dir}/sock")
    assert one.chat(max_tokens=1).status == 200
    assert 'INFO:      - "POST /v1/chat/completions HTTP/1.1" 200 OK\n' in one.out
    one.process.terminate()
    assert one.wait() == 0
    assert (short_dir / "sock").is_socket()  # the real server leaves it behind, too


def test_a_root_path_is_taken_off(simulate: Simulate) -> None:
    one = simulate("--root-path", "/llm")
    assert one.ask("GET", "/llm/version").status == 200
    assert one.ask("GET", "/version").status == 200
