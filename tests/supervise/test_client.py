"""What the clients send, and how they take answers, refusals and silence."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from vllm_circus.errors import CircusError, NotRunning
from vllm_circus.supervise.client import AsyncClient, Client

Message = dict[str, Any]
Reply = Callable[[Message], list[Message]]


def busy(message: Message) -> Message:
    return error(message, "arbiter is already running manage_watchers command", 5)


def error(message: Message, reason: str, errno: int) -> Message:
    return {"id": message["id"], "status": "error", "reason": reason, "errno": errno, "tb": None}


def ok(message: Message, **more: object) -> Message:
    return {"id": message["id"], "status": "ok", **more}


class Circusd:
    """Answers as the given function says, and remembers what it was asked."""

    def __init__(self, endpoint: str, reply: Reply) -> None:
        self.endpoint, self.asked = endpoint, list[Message]()
        self._reply = reply
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.bind(endpoint)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while not self._stop.is_set():
            if self._socket.poll(20):
                client, raw = self._socket.recv_multipart()
                self.asked.append(json.loads(raw))
                for answer in self._reply(self.asked[-1]):
                    self._socket.send_multipart([client, json.dumps(answer).encode()])

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._socket.close(linger=0)
        self._context.term()


Serve = Callable[[Reply], Circusd]


@pytest.fixture
def serve(short_dir: Path) -> Iterator[Serve]:
    servers: list[Circusd] = []

    def begin(reply: Reply) -> Circusd:
        servers.append(Circusd(f"ipc://{short_dir}/c.sock", reply))
        return servers[-1]

    yield begin
    for server in servers:
        server.close()


def both(endpoint: str, use: str, *arguments: Any, timeout: float = 5.0) -> list[Any]:
    """The same call through either client."""

    async def asynchronous() -> Any:
        client = AsyncClient(endpoint, timeout=timeout)
        try:
            return await getattr(client, use)(*arguments)
        finally:
            client.close()

    with Client(endpoint, timeout=timeout) as client:
        return [getattr(client, use)(*arguments), asyncio.run(asynchronous())]


@pytest.mark.parametrize(
    ("use", "arguments", "command", "properties", "answer", "result"),
    [
        ("status", (), "status", {}, {"statuses": {"proxy": "active"}}, {"proxy": "active"}),
        ("pids", ("proxy",), "list", {"name": "proxy"}, {"pids": [1, 2]}, [1, 2]),
        (
            *("start", ("model-a",), "start", {"name": "model-a", "match": "simple", "waiting": True}),
            *({"info": {"started": [7], "kept": []}}, [7]),
        ),
        ("stop", ("model-a",), "stop", {"name": "model-a", "match": "simple"}, {}, None),
        ("signal", ("proxy", 15), "signal", {"name": "proxy", "signum": 15}, {}, None),
        ("signal", ("proxy", 9, 44), "signal", {"name": "proxy", "signum": 9, "pid": 44}, {}, None),
        ("quit", (), "quit", {}, {}, None),
    ],
)
def test_each_call_is_one_message(
    serve: Serve, use: str, arguments: tuple[Any, ...], command: str, properties: Message, answer: Message, result: Any
) -> None:
    circusd = serve(lambda message: [ok(message, **answer)])
    assert both(circusd.endpoint, use, *arguments) == [result, result]
    assert [(asked["command"], asked["properties"]) for asked in circusd.asked] == [(command, properties)] * 2


def test_a_lock_conflict_is_tried_again(serve: Serve) -> None:
    circusd = serve(lambda message: [busy(message) if len(circusd.asked) % 3 else ok(message, statuses={})])
    assert both(circusd.endpoint, "status") == [{}, {}]
    assert len(circusd.asked) == 6


def test_a_lock_that_stays_is_an_error_at_the_end_of_the_time(serve: Serve) -> None:
    circusd = serve(lambda message: [busy(message)])
    with Client(circusd.endpoint, timeout=2) as client, pytest.raises(CircusError, match="already running"):
        client.stop("model-a")
    assert len(circusd.asked) > 2


def test_other_refusals_are_errors_at_once(serve: Serve) -> None:
    circusd = serve(lambda message: [error(message, "program x not found", 3)])
    with Client(circusd.endpoint) as client, pytest.raises(CircusError, match="`list`: program x not found"):
        client.pids("x")
    assert len(circusd.asked) == 1


def test_answers_to_earlier_calls_are_passed_over(serve: Serve) -> None:
    circusd = serve(lambda message: [ok({"id": "old"}, statuses={"a": "old"}), ok(message, statuses={"a": "new"})])
    assert both(circusd.endpoint, "status") == [{"a": "new"}, {"a": "new"}]


def test_nobody_there_is_known_at_once(short_dir: Path) -> None:
    begun = time.monotonic()
    with (
        Client(f"ipc://{short_dir}/none.sock", timeout=30) as client,
        pytest.raises(NotRunning, match="nobody answers"),
    ):
        client.status()
    assert time.monotonic() - begun < 15


def test_a_socket_that_a_dead_circusd_left_is_known_at_once(serve: Serve, short_dir: Path) -> None:
    script = "import socket, sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])"
    subprocess.run((sys.executable, "-c", script, f"{short_dir}/c.sock"), check=True)
    begun = time.monotonic()
    with Client(f"ipc://{short_dir}/c.sock", timeout=30) as client, pytest.raises(NotRunning):
        client.status()
    assert time.monotonic() - begun < 15


def test_a_circusd_that_is_too_busy_to_be_reached_is_there(short_dir: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener, contextlib.ExitStack() as waiting:
        listener.bind(f"{short_dir}/c.sock")
        listener.listen(0)
        for _ in range(3):
            client = waiting.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            client.connect_ex(f"{short_dir}/c.sock")
        with (
            Client(f"ipc://{short_dir}/c.sock", timeout=0.2) as busy,
            pytest.raises(NotRunning, match="does not answer"),
        ):
            busy.status()


def test_silence_is_not_running_after_the_time(serve: Serve) -> None:
    circusd = serve(lambda _: [])
    with Client(circusd.endpoint, timeout=0.2) as client, pytest.raises(NotRunning, match=r"within 0\.2 s"):
        client.status()


def test_a_client_works_again_after_silence(serve: Serve) -> None:
    circusd = serve(lambda message: [ok(message, statuses={})] if len(circusd.asked) > 1 else [])
    with Client(circusd.endpoint, timeout=2) as client:
        with pytest.raises(NotRunning):
            client.status()
        assert client.status() == {}


def test_calls_at_the_same_time_each_get_their_own_answer(serve: Serve) -> None:
    circusd = serve(lambda message: [ok(message, pids=[int(message["properties"]["name"])])])

    async def ask() -> list[list[int]]:
        client = AsyncClient(circusd.endpoint)
        try:
            return await asyncio.gather(*(client.pids(str(number)) for number in range(10)))
        finally:
            client.close()

    assert asyncio.run(ask()) == [[number] for number in range(10)]


def test_importing_the_client_is_cheap() -> None:
    script = "import sys, vllm_circus.supervise.client; print(sorted({'zmq', 'tornado', 'circus'} & set(sys.modules)))"
    done = subprocess.run((sys.executable, "-c", script), capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
