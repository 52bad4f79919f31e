"""Engines of one model, as tests of routing need them: those that answer when told, that fail, that are not there."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

from tests.proxy.conftest import Worker, a_model
from tests.proxy.scripted import DEADLINE, Backend, Peer, ok, post, until
from vllm_circus.plan.types import ModelPlan

ASK = b'{"model":"chat"}'
BROKEN = b"HTTP/1.1 500 Internal Server Error\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"


def replicas(*ports: int, **changes: Any) -> tuple[ModelPlan, ...]:
    """The plans of the model `chat` with an engine at each of these ports."""
    return tuple(
        a_model(f"chat-{number}", port, **({"group": "chat", "names": ("chat",)} | changes))
        for number, port in enumerate(ports, 1)
    )


@contextmanager
def engines(number: int) -> Iterator[list[Backend]]:
    """So many, each answering its own number."""
    with ExitStack() as stack:
        made = [stack.enter_context(closing(Backend())) for _ in range(number)]
        for index, engine in enumerate(made):
            engine.answers(numbered(index))
        yield made


@contextmanager
def nobody() -> Iterator[int]:
    """A port that refuses every connection, and that nobody else can get meanwhile."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


def numbered(index: int) -> bytes:
    return ok(b"%d" % index)


class Held:
    """A script that answers each request when the test lets it; `busy` and `most` count those that wait for that."""

    def __init__(self, answer: bytes = ok(b"{}")) -> None:
        self.busy = self.most = 0
        self._answer = answer
        self._permits = threading.Semaphore(0)
        self._lock = threading.Lock()

    def let(self, number: int = 1) -> None:
        """Answer so many."""
        self._permits.release(number)

    def __call__(self, backend: Backend, peer: Peer) -> None:
        while True:
            backend.read_request(peer)
            with self._lock:
                self.busy += 1
                self.most = max(self.most, self.busy)
            allowed = self._permits.acquire(timeout=2 * DEADLINE)
            with self._lock:
                self.busy -= 1
            if not allowed:
                return
            peer.send(self._answer)


def ask(worker: Worker, body: bytes = ASK, *lines: bytes) -> Peer:
    """A client that has sent a request; its answer is not read."""
    client = worker.client()
    client.send(post(body, *lines))
    return client


def seen(*backends: Backend) -> list[int]:
    """How many requests each has had."""
    return [len(backend.requests) for backend in backends]


def all_seen(number: int, *backends: Backend) -> bool:
    return until(lambda: sum(seen(*backends)) >= number)
