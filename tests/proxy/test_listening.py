"""Who comes in, when, and by which socket."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.proxy.conftest import Start, Worker, a_model, a_plan, wait_until_serving
from tests.proxy.scripted import DEADLINE, SSE_HEAD, Backend, Peer, event, get, ok, post, read_message, until
from vllm_circus.config.models import Limits
from vllm_circus.errors import CircusError
from vllm_circus.plan.types import dump_plan
from vllm_circus.proxy.sockets import inherited_socket

CHAT = b'{"model":"alpha","messages":[]}'


def unix_client(worker: Worker) -> Peer:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(DEADLINE)
    sock.connect(worker.plan.proxy.unix_socket or "")
    peer = Peer(sock)
    worker.clients.append(peer)
    return peer


def test_a_unix_socket_is_served_beside_the_port(start: Start, backend: Backend, short_dir: Path) -> None:
    worker = start(a_model("alpha", backend.port), unix_socket=str(short_dir / "public"))
    client = unix_client(worker)
    client.send(post(CHAT))
    assert read_message(client).status == 200
    assert backend.requests[-1].get(b"x-forwarded-for") == b"unix"
    assert worker.chat(CHAT).status == 200
    assert backend.requests[-1].get(b"x-forwarded-for") == b"127.0.0.1"


def test_a_client_that_leaves_by_the_unix_socket_ends_its_stream(
    start: Start, backend: Backend, short_dir: Path
) -> None:
    def stall(own: Backend, peer: Peer) -> None:
        own.read_request(peer)
        peer.send(SSE_HEAD + event(1))

    worker = start(a_model("alpha", backend.port), unix_socket=str(short_dir / "public"))
    backend.plays(stall)
    client = unix_client(worker)
    client.send(post(CHAT))
    client.read_until(b"\n\n")
    client.close()
    assert backend.connections[0].ended()


def test_a_client_that_half_closes_the_unix_socket_has_its_answer(
    start: Start, backend: Backend, short_dir: Path
) -> None:
    def wait(own: Backend, peer: Peer) -> None:
        own.read_request(peer)
        time.sleep(1.0)  # longer than a client that half-closed is taken for one that waits, without a look
        peer.send(ok(b"{}"))

    worker = start(a_model("alpha", backend.port), unix_socket=str(short_dir / "public"))
    backend.plays(wait)
    client = unix_client(worker)
    client.send(post(CHAT))
    client.half_close()
    assert client.read_all().endswith(b"{}")


def test_the_cap_counts_both_sockets_and_holds_both_back(start: Start, backend: Backend, short_dir: Path) -> None:
    limits = Limits(max_connections=4)
    worker = start(a_model("alpha", backend.port), unix_socket=str(short_dir / "public"), limits=limits)
    inside = [worker.client(), unix_client(worker), worker.client(), unix_client(worker)]
    for client in inside:
        client.send(get(b"/health"))
        assert read_message(client).status == 200
    held = [worker.client(), unix_client(worker)]
    for client in held:
        client.send(get(b"/health"))
    assert until(lambda: b"4 connections are open, the most allowed" in worker.log.read_bytes())
    assert not any(client.ended(0.2) or client.rest for client in held)
    for client in inside:
        client.close()
    assert [read_message(client).status for client in held] == [200, 200]


def test_few_open_files_limit_the_connections_and_not_the_service(start: Start, backend: Backend) -> None:
    worker = start(a_model("alpha", backend.port), nofile=256)
    clients = [worker.client() for _ in range(300)]
    assert until(lambda: b"accepting pauses" in worker.log.read_bytes())
    clients[0].send(get(b"/health"))
    assert read_message(clients[0]).status == 200
    for client in clients[:250]:
        client.close()
    clients[-1].send(get(b"/health"))
    assert read_message(clients[-1]).status == 200
    assert len(worker.log.read_bytes().splitlines()) < 20


def test_without_descriptors_accepting_rests_and_nobody_is_lost(start: Start, backend: Backend) -> None:
    worker = start(a_model("alpha", backend.port))
    inside = worker.client()
    inside.send(get(b"/nowhere"))  # answered without another descriptor
    assert read_message(inside).status == 404
    pid, (soft, hard) = worker.process.pid, resource.prlimit(worker.process.pid, resource.RLIMIT_NOFILE)
    # of the standard streams none is free, whatever the worker opens and closes meanwhile
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, hard))
    waiting = [worker.client() for _ in range(20)]
    for client in waiting:
        client.send(get(b"/nowhere"))
    assert until(lambda: b"no connection can be accepted" in worker.log.read_bytes())
    lines, before, began = len(worker.log.read_bytes().splitlines()), worker.cpu_seconds(), time.monotonic()
    assert not waiting[0].ended(2.0)  # the time that is measured
    assert worker.cpu_seconds() - before < 0.1 * (time.monotonic() - began)
    assert len(worker.log.read_bytes().splitlines()) - lines <= 10
    inside.send(get(b"/nowhere"))
    assert read_message(inside).status == 404
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
    assert [read_message(client).status for client in waiting] == [404] * 20


def test_two_workers_share_what_comes_at_once(short_dir: Path, backend: Backend) -> None:
    plan = a_plan(short_dir, a_model("alpha", backend.port))
    plan.instance.plan.write_bytes(dump_plan(plan))
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as listener:
        workers = [beside(plan.instance.plan, listener, short_dir / f"{number}.log") for number in range(2)]
        try:
            for process, log in workers:
                wait_until_serving(Worker(plan, 0, process, log))
            taken = [0, 0]

            def bursts_are_shared() -> bool:
                for number, more in enumerate(burst(listener.getsockname(), [process for process, _ in workers])):
                    taken[number] += more
                return min(taken) >= sum(taken) // 10

            assert until(bursts_are_shared), taken  # who has no core for a moment is left nothing of a single one
        finally:
            for process, _ in workers:
                process.kill()
                process.wait(DEADLINE)


def burst(address: tuple[str, int], workers: list[subprocess.Popen[bytes]]) -> list[int]:
    """How many of 400 connections that are opened at once each of the workers takes; they are closed again."""
    before = [sockets_of(process) for process in workers]
    taken: list[int] = []

    def are_taken(number: int) -> bool:
        taken[:] = [sockets_of(process) - had for process, had in zip(workers, before, strict=True)]
        return sum(taken) == number

    clients = [socket.create_connection(address) for _ in range(400)]
    assert until(lambda: are_taken(len(clients))), taken
    found = taken.copy()
    for client in clients:
        client.close()
    assert until(lambda: are_taken(0)), taken
    return found


def test_what_was_accepted_before_the_end_has_its_answer_and_the_rest_waits_for_the_next(
    short_dir: Path, backend: Backend
) -> None:
    plan = a_plan(short_dir, a_model("alpha", backend.port))
    plan.instance.plan.write_bytes(dump_plan(plan))
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as listener:
        first, log = beside(plan.instance.plan, listener, short_dir / "1.log")
        wait_until_serving(Worker(plan, 0, first, log))
        address, before = listener.getsockname(), sockets_of(first)
        accepted = Peer(socket.create_connection(address))
        assert until(lambda: sockets_of(first) > before)
        first.terminate()
        assert until(lambda: b"drains" in log.read_bytes())
        later = [Peer(socket.create_connection(address)) for _ in range(50)]
        for client in (accepted, *later):
            client.send(post(CHAT))
        answer = read_message(accepted)
        assert (answer.status, answer.get(b"connection")) == (200, b"close")
        assert first.wait(DEADLINE) == 0
        second, log = beside(plan.instance.plan, listener, short_dir / "2.log")
        try:
            assert [read_message(client).status for client in later] == [200] * 50
        finally:
            second.kill()
            second.wait(DEADLINE)
            for client in (accepted, *later):
                client.close()


def beside(plan: Path, listener: socket.socket, log: Path) -> tuple[subprocess.Popen[bytes], Path]:
    """A further worker on a socket that others have, too."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "vllm_circus.proxy", "--plan", str(plan), "--fd", str(listener.fileno())],
            pass_fds=[listener.fileno()],
            stdout=output,
            stderr=output,
        )
    return process, log


def test_a_descriptor_that_is_no_listening_socket_is_told(tmp_path: Path) -> None:
    with (tmp_path / "x").open("wb") as file, pytest.raises(CircusError, match="is no socket"):
        inherited_socket(file.fileno())
    with socket.socket() as sock, pytest.raises(CircusError, match="does not listen"):
        inherited_socket(os.dup(sock.fileno()))


def sockets_of(process: subprocess.Popen[bytes]) -> int:
    """Sockets that a process has open."""
    found = 0
    for descriptor in Path(f"/proc/{process.pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed in between
            found += str(descriptor.readlink()).startswith("socket:")
    return found
