"""The cells' clients: one that asks whether a model answers, and some that hold streams."""

from __future__ import annotations

import json
import socket
import threading

from tests.e2e.traffic import Asked

_TOKENS = 150
_STREAMS = 5
_PATIENCE = 60.0
_ERROR = b'data: {"error"'


def _message(model: str, tokens: int, *, stream: bool) -> bytes:
    asked = {"model": model, "stream": stream, "max_tokens": tokens, "messages": [{"role": "user", "content": "x"}]}
    body = json.dumps(asked)
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()


def answers(port: int, model: str, within: float = 1.0) -> bool:
    """Whether a chat request is answered 200 within so many seconds; a status that never comes is a no."""
    try:
        with socket.create_connection(("127.0.0.1", port), within) as sock:
            sock.sendall(_message(model, 1, stream=False))
            sock.settimeout(within)
            return sock.recv(65536).startswith(b"HTTP/1.1 200 ")
    except OSError:
        return False


def states(port: int, within: float = 1.0) -> dict[str, str]:
    """What the proxy tells of its models; nothing where it tells nothing."""
    data = b""
    try:
        with socket.create_connection(("127.0.0.1", port), within) as sock:
            sock.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            sock.settimeout(within)
            while more := sock.recv(65536):
                data += more
        told: dict[str, str] = json.loads(data.partition(b"\r\n\r\n")[2])["models"]
    except (OSError, ValueError, KeyError):
        return {}
    return told


class Streams:
    """Some streams of one model, each read by a thread to its end; `begun` is set once all have an event."""

    def __init__(self, port: int, model: str) -> None:
        self._port = port
        self._model = model
        self._begun = threading.Semaphore(0)
        self._threads = [threading.Thread(target=self._run) for _ in range(_STREAMS)]
        self.ended: list[Asked] = []
        for thread in self._threads:
            thread.start()

    def wait_begun(self) -> None:
        """Until every stream has begun. Raises AssertionError where one does not."""
        for _ in self._threads:
            assert self._begun.acquire(timeout=_PATIENCE), "a stream does not begin"

    def wait_ended(self, within: float) -> None:
        """Until all have ended, or so many seconds."""
        for thread in self._threads:
            thread.join(within)

    def counts(self) -> tuple[int, int, int]:
        """Streams that are whole, visibly cut, and cut but looking whole.

        An engine that dies says so in an event, and then ends the stream in form: that is visible, too.
        """
        whole = sum(one.whole for one in self.ended)
        false = sum(one.looks_whole and not one.whole and _ERROR not in one.answer for one in self.ended)
        return whole, _STREAMS - whole - false, false

    def _run(self) -> None:
        data = b""
        try:
            with socket.create_connection(("127.0.0.1", self._port), _PATIENCE) as sock:
                sock.sendall(_message(self._model, _TOKENS, stream=True))
                while more := sock.recv(65536):
                    if b"data: " in more and b"data: " not in data:
                        self._begun.release()
                    data += more
        except OSError:
            pass  # what came until then tells it
        status = int(data[9:12]) if data.startswith(b"HTTP/1.1 ") else 0
        ended = data.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
        whole = status == 200 and ended and data.count(b"data: ") > _TOKENS and _ERROR not in data
        self.ended.append(Asked(0.0, status, whole, data))
