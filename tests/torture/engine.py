"""The torture's engine: `python -m tests.torture.engine --port N` prints its port and answers what is asked for.

Rules: it costs little and trusts its clients. What it has seen it tells at `/torture`, to whoever asks it directly:
streams that are open, requests, bytes sent, and the targets that no public path leads to. It ends with its parent.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import json
import re
import signal
from dataclasses import asdict, dataclass, field
from typing import cast

import uvloop

from tests.torture.wire import DONE, LAST_CHUNK, STREAM_HEAD, Order, chunk, read_bytes, read_stream

_LENGTH = re.compile(rb"(?i)\r\ncontent-length:[ ]*([0-9]+)\r\n")
_PIECE = b"x" * 65536
_USUAL = (b"POST /v1/", b"GET /torture ", b"GET /health ", b"GET /v1/models ", b"GET /metrics ", b"GET /version")


@dataclass
class Seen:
    """What came and what is going on."""

    open: int = 0
    requests: int = 0
    bytes: int = 0
    odd: list[str] = field(default_factory=list)


def _answer(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


class Engine(asyncio.Protocol):
    """One connection."""

    def __init__(self, seen: Seen, name: str) -> None:
        self._seen = seen
        self._name = name
        self._loop = asyncio.get_running_loop()
        self._buffer = b""
        self._line = b""
        self._unread = 0
        self._order: Order | None = None
        self._sent = self._left = 0
        self._next: asyncio.TimerHandle | None = None
        self._crowded = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self._unread:
            self._unread -= len(data)
        else:
            data = self._buffer + data
            end = data.find(b"\r\n\r\n") + 4
            self._buffer = b"" if end >= 4 else data
            if end < 4:
                return
            self._line = data[: data.find(b"\r\n")]
            length = _LENGTH.search(data, 0, end)
            self._unread = (int(length[1]) if length else 0) - (len(data) - end)
        if not self._unread:
            self._reply(self._line, data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._next is not None:
            self._next.cancel()
        if self._order is not None or self._left:
            self._seen.open -= 1
            self._order, self._left = None, 0

    def pause_writing(self) -> None:
        self._crowded = True

    def resume_writing(self) -> None:
        self._crowded = False
        if self._left:
            self._pour()

    def _reply(self, line: bytes, data: bytes) -> None:
        seen = self._seen
        if line.startswith(b"GET /torture "):
            self._transport.write(_answer(json.dumps(asdict(seen)).encode()))
            return
        seen.requests += 1
        if not line.startswith(_USUAL):
            seen.odd.append(line.decode("latin-1"))
        order, size = read_stream(line, data), read_bytes(line)
        if order is not None:
            self._order, self._sent = order, 0
            seen.open += 1
            self._transport.write(STREAM_HEAD)
            self._step(order)
        elif size:
            self._left = size
            seen.open += 1
            self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
            self._pour()
        else:
            self._transport.write(_answer(json.dumps({"data": [{"id": self._name}]}).encode()))

    def _step(self, order: Order) -> None:
        self._next = None
        if not self._crowded:
            data = chunk(order.event(self._sent))
            self._sent += 1
            if self._sent == order.events:
                self._order = None
                self._seen.open -= 1
                self._transport.write(data + chunk(DONE) + LAST_CHUNK)
                return
            self._transport.write(data)
        self._next = self._loop.call_later(order.pace / 1000, self._step, order)

    def _pour(self) -> None:
        while self._left and not self._crowded:
            size = min(self._left, len(_PIECE))
            self._left -= size
            self._seen.bytes += size
            self._seen.open -= not self._left
            self._transport.write(_PIECE[:size])


async def serve(host: str, port: int, name: str) -> None:
    """Answer until the process is ended."""
    seen = Seen()
    server = await asyncio.get_running_loop().create_server(lambda: Engine(seen, name), host, port, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: it is not left behind
    parser = argparse.ArgumentParser(prog="python -m tests.torture.engine")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--name", default="alpha")
    options = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(options.host, options.port, options.name))


if __name__ == "__main__":
    main()
