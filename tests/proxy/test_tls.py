"""HTTPS on the public port: the same relay, behind TLS."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.proxy.certificates import make_pair
from tests.proxy.conftest import Start, Worker, a_model
from tests.proxy.scripted import (
    DEADLINE,
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
    until,
)
from vllm_circus.config.models import Limits
from vllm_circus.errors import CircusError
from vllm_circus.proxy.tls import Certificates, server_context

CHAT = b'{"model":"alpha","messages":[]}'
MOST = 64 << 20


def tls_client(worker: Worker, *, version: ssl.TLSVersion | None = None, protocols: tuple[str, ...] = ()) -> Peer:
    """A client that trusts the present certificate alone, and to which a torn end is an error."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(worker.plan.proxy.tls_certificate)
    if version is not None:
        context.minimum_version = context.maximum_version = version
    if protocols:
        context.set_alpn_protocols(list(protocols))
    sock = socket.create_connection(("127.0.0.1", worker.port), timeout=DEADLINE)
    peer = Peer(context.wrap_socket(sock, server_hostname="127.0.0.1", suppress_ragged_eofs=False))
    worker.clients.append(peer)
    return peer


def certificate_of(peer: Peer) -> bytes | None:
    assert isinstance(peer.sock, ssl.SSLSocket)
    return peer.sock.getpeercert(binary_form=True)


@pytest.fixture
def pair(short_dir: Path) -> tuple[Path, Path]:
    return make_pair(short_dir)


@pytest.fixture
def secure(start: Start, backend: Backend, pair: tuple[Path, Path]) -> Worker:
    """A worker behind TLS with the model alpha, which `backend` serves."""
    return start(
        a_model("alpha", backend.port),
        tls_certificate=str(pair[0]),
        tls_key=str(pair[1]),
        limits=Limits(header_timeout=2, max_body_bytes=MOST),
    )


def test_requests_and_streams_are_served(secure: Worker, backend: Backend) -> None:
    client = tls_client(secure)
    for _ in range(2):
        client.send(post(CHAT))
        assert read_message(client).body == b'{"ok":true}'
    backend.answers(SSE_HEAD + event(1) + event(2) + DONE)
    client.send(post(CHAT))
    assert read_message(client).body.count(b"data:") == 3


def test_large_bodies_pass_both_ways(secure: Worker, backend: Backend) -> None:
    content = os.urandom(3 << 20).hex().encode()
    backend.answers(ok(content))
    client = tls_client(secure)
    client.send(post(b'{"model":"alpha","x":"%b"}' % content))
    assert read_message(client).body == content
    assert content in backend.requests[-1].body


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_http_1_1_is_agreed_on_whatever_else_is_offered(secure: Worker, version: ssl.TLSVersion) -> None:
    client = tls_client(secure, version=version, protocols=("h2", "http/1.1"))
    assert isinstance(client.sock, ssl.SSLSocket)
    assert client.sock.selected_alpn_protocol() == "http/1.1"
    client.send(get(b"/health"))
    assert read_message(client).status == 200


def test_what_is_no_tls_gets_no_answer_and_disturbs_nobody(secure: Worker) -> None:
    plain = secure.client()
    plain.send(get(b"/health"))
    assert plain.ended()
    assert b"HTTP/" not in plain.rest
    client = tls_client(secure)
    client.send(get(b"/health"))
    assert read_message(client).status == 200
    assert b"Traceback" not in secure.log.read_bytes()


def test_a_handshake_that_does_not_come_takes_a_place_until_its_time_is_over(
    start: Start, backend: Backend, pair: tuple[Path, Path]
) -> None:
    limits = Limits(header_timeout=1, max_connections=3)
    model = a_model("alpha", backend.port)
    worker = start(model, tls_certificate=str(pair[0]), tls_key=str(pair[1]), limits=limits)
    silent = [worker.client() for _ in range(3)]
    assert until(lambda: b"3 connections are open, the most allowed" in worker.log.read_bytes())
    client = tls_client(worker)
    client.send(get(b"/health"))
    assert read_message(client).status == 200
    assert all(peer.ended() for peer in silent)
    assert b"Traceback" not in worker.log.read_bytes()


def test_the_end_of_the_worker_waits_for_no_handshake_longer_than_its_time(secure: Worker) -> None:
    silent = secure.client()
    began = time.monotonic()
    assert secure.stop() == 0
    assert silent.ended()
    assert time.monotonic() - began < secure.plan.proxy.drain_timeout


def test_a_client_that_leaves_ends_its_stream(secure: Worker, backend: Backend) -> None:
    def stall(own: Backend, peer: Peer) -> None:
        own.read_request(peer)
        peer.send(SSE_HEAD + event(1))

    for leave in (Peer.reset, Peer.close, Peer.half_close):
        backend.plays(stall)
        client = tls_client(secure)
        client.send(post(CHAT))
        client.read_until(b"\n\n")
        leave(client)
        assert backend.connections[0].ended(), leave


def test_a_client_that_says_goodbye_ends_its_stream(secure: Worker, backend: Backend) -> None:
    def swallow(own: Backend, peer: Peer) -> None:
        own.read_request(peer)

    backend.plays(swallow)
    client = tls_client(secure)
    client.send(post(CHAT))
    assert until(lambda: backend.requests)
    assert isinstance(client.sock, ssl.SSLSocket)
    with suppress(OSError):  # answered or not
        client.sock.unwrap()
    assert backend.connections[0].ended()
    assert b"has no effect" not in secure.log.read_bytes()


def test_a_reader_that_stalls_pauses_its_engine(secure: Worker, backend: Backend) -> None:
    sent = 0

    def flood(own: Backend, peer: Peer) -> None:
        nonlocal sent
        own.read_request(peer)
        peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % MOST)
        while sent < MOST:
            peer.send(bytes(1 << 20))
            sent += 1 << 20

    backend.plays(flood)
    before = secure.memory()
    client = tls_client(secure)
    client.send(post(CHAT))
    client.read_until(b"\r\n\r\n")
    seen = -1
    while seen != sent:
        seen = sent
        time.sleep(0.3)
    assert sent < MOST // 2
    assert secure.memory() - before < 8 << 20
    received = len(client.rest)
    while received < MOST:
        received += len(client.sock.recv(1 << 20))


def test_a_cut_stream_does_not_end_like_a_whole_one(secure: Worker, backend: Backend) -> None:
    seen = threading.Event()

    def until_the_end(own: Backend, peer: Peer) -> None:
        own.read_request(peer)
        peer.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n" + chunk(b"part"))
        seen.wait(DEADLINE)
        peer.close()

    backend.plays(until_the_end)
    client = tls_client(secure)
    client.send(post(CHAT).replace(b"HTTP/1.1", b"HTTP/1.0"))  # which knows no chunks: the end is the connection's
    client.read_until(b"part")
    seen.set()
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        client.read_until(b"never")


def test_an_answer_to_a_body_that_is_too_large_arrives(secure: Worker) -> None:
    client = tls_client(secure)
    client.send(post(CHAT).replace(b"Length: %d" % len(CHAT), b"Length: %d" % (MOST + 1)))
    client.send(bytes(1 << 20))
    assert read_message(client).status == 413


def test_engines_are_told_that_it_was_https(secure: Worker, backend: Backend) -> None:
    client = tls_client(secure)
    client.send(post(CHAT, b"X-Forwarded-Proto: http"))
    assert read_message(client).status == 200
    assert backend.requests[-1].get(b"x-forwarded-proto") == b"https"


def test_the_unix_socket_stays_plain(start: Start, backend: Backend, pair: tuple[Path, Path]) -> None:
    path = str(pair[0].with_name("public"))
    model = a_model("alpha", backend.port)
    start(model, tls_certificate=str(pair[0]), tls_key=str(pair[1]), unix_socket=path)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
        client = Peer(sock)
        client.send(post(CHAT))
        assert read_message(client).status == 200
    assert backend.requests[-1].get(b"x-forwarded-proto") == b"http"
    assert backend.requests[-1].get(b"x-forwarded-for") == b"unix"


def test_a_renewed_certificate_is_the_next_clients(secure: Worker, pair: tuple[Path, Path]) -> None:
    old = tls_client(secure)
    old.send(get(b"/health"))
    assert read_message(old).status == 200
    make_pair(pair[0].parent)
    new = ssl.PEM_cert_to_DER_cert(pair[0].read_text())
    assert until(lambda: b"was read again" in secure.log.read_bytes())
    client = tls_client(secure)
    assert certificate_of(client) == new != certificate_of(old)
    for peer in (old, client):
        peer.send(get(b"/health"))
        assert read_message(peer).status == 200


def test_a_broken_pair_is_said_once_and_leaves_the_old_one(
    tmp_path: Path, pair: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    certificates = Certificates(*pair)
    first = certificates.context
    other = make_pair(tmp_path)
    shutil.copy(other[0], pair[0])
    for _ in range(5):
        certificates.look()
    assert certificates.context is first
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "key values mismatch" in caplog.text
    pair[1].unlink()
    for _ in range(5):
        certificates.look()
    assert len(caplog.records) == 2
    assert "No such file" in caplog.text
    shutil.copy(other[1], pair[1])
    certificates.look()
    assert certificates.context is first  # it changed a moment ago, and may be in the midst of it
    certificates.look()
    assert certificates.context is not first


def test_files_that_are_no_pair_are_told_by_what_is_wrong(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    other = make_pair(tmp_path, "other")
    with pytest.raises(CircusError, match="key values mismatch"):
        server_context(pair[0], other[1])
    with pytest.raises(CircusError, match=r"nothing\.crt cannot be read: No such file"):
        server_context(tmp_path / "nothing.crt", pair[1])
    (tmp_path / "text").write_text("no certificate")
    with pytest.raises(CircusError, match="cannot be used for TLS"):
        server_context(tmp_path / "text", pair[1])
    locked = "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,{0}\n\n{0}\n"
    (tmp_path / "locked").write_text(locked.format("00" * 16) + "-----END EC PRIVATE KEY-----\n")
    with pytest.raises(CircusError, match="encrypted"):
        server_context(pair[0], tmp_path / "locked")
