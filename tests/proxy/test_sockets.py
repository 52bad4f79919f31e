"""Connections to engines, as the kernel gives or refuses them."""

from __future__ import annotations

import asyncio
import gc
import socket
import subprocess
import sys
from collections.abc import Awaitable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
import uvloop

from tests.proxy.scripted import DEADLINE
from vllm_circus.plan.types import Endpoint
from vllm_circus.proxy.sockets import connect

T = TypeVar("T")


def run(story: Awaitable[T]) -> T:
    async def limited() -> T:
        return await asyncio.wait_for(story, DEADLINE)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(limited())


def files() -> int:
    return len(tuple(Path("/proc/self/fd").iterdir()))


def files_at_rest() -> int:
    """The same without what is garbage, and with the two that libuv opens at a process's first loop and keeps."""
    run(asyncio.sleep(0))
    gc.collect()
    return files()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


async def to(endpoint: Endpoint) -> socket.socket:
    return await connect(asyncio.get_running_loop(), endpoint)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_port_is_connected_to(listener: socket.socket, host: str) -> None:
    port = listener.getsockname()[1]
    with run(to(Endpoint(host, port))) as sock, listener.accept()[0] as theirs:
        assert sock.getsockname() == theirs.getpeername()
        assert not sock.getblocking()


def test_an_address_takes_no_thread_to_connect_to(listener: socket.socket) -> None:
    """Once somebody asks for a name there are some for good, so this is for a process of its own."""
    code = (
        "import asyncio, pathlib, sys, uvloop\n"
        "from vllm_circus.plan.types import Endpoint\n"
        "from vllm_circus.proxy.sockets import connect\n"
        "async def story():\n"
        "    await connect(asyncio.get_running_loop(), Endpoint('127.0.0.1', int(sys.argv[1])))\n"
        "    print(len(tuple(pathlib.Path('/proc/self/task').iterdir())))\n"
        "asyncio.Runner(loop_factory=uvloop.new_event_loop).run(story())\n"
    )
    argv = [sys.executable, "-c", code, str(listener.getsockname()[1])]
    assert subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout == "1\n"


def test_a_name_is_tried_at_all_its_addresses(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    port = listener.getsockname()[1]
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port)) for host in ("127.0.0.2", "127.0.0.1")]

    class Loop:
        def __init__(self) -> None:
            loop = asyncio.get_running_loop()
            self.add_writer, self.remove_writer = loop.add_writer, loop.remove_writer

        async def getaddrinfo(self, *_: object, **__: object) -> object:
            return found

    async def story() -> socket.socket:
        return await connect(Loop(), Endpoint("engine.example", port))  # type: ignore[arg-type]

    with run(story()) as sock:
        assert sock.getpeername() == ("127.0.0.1", port)
    found.pop()
    with pytest.raises(ConnectionRefusedError):
        run(story())


@pytest.mark.parametrize("kind", ["port", "unix"])
def test_nobody_there_is_said_and_leaves_no_file(listener: socket.socket, tmp_path: Path, kind: str) -> None:
    port = listener.getsockname()[1]
    listener.close()
    path = tmp_path / "engine.sock"
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(path))
    before = files_at_rest()
    with pytest.raises(ConnectionRefusedError):
        run(to(Endpoint("127.0.0.1", port, str(path) if kind == "unix" else None)))
    assert files() == before


def test_a_unix_socket_whose_queue_is_full_is_no_connection(tmp_path: Path) -> None:
    path = str(tmp_path / "engine.sock")
    with socket.socket(socket.AF_UNIX) as engine, socket.socket(socket.AF_UNIX) as first:
        engine.bind(path)
        engine.listen(0)
        first.connect(path)
        before = files_at_rest()
        with pytest.raises(BlockingIOError):
            run(to(Endpoint("localhost", 0, path)))
        assert files() == before
        with engine.accept()[0], run(to(Endpoint("localhost", 0, path))) as sock:
            sock.sendall(b"taken")


def test_who_gives_up_leaves_no_file(listener: socket.socket) -> None:
    async def story() -> None:
        with socket.socket() as full:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            waiting = [asyncio.ensure_future(to(Endpoint("127.0.0.1", full.getsockname()[1]))) for _ in range(8)]
            done, pending = await asyncio.wait(waiting, timeout=0.1)
            assert pending
            for task in pending:
                task.cancel()
            await asyncio.wait(pending)
            for task in done:
                task.result().close()

    before = files_at_rest()
    run(story())
    assert files() == before
