"""The mock engine: `python -m tests.bench.backend --port N` prints the port that it listens on, and answers.

Rules: it is made to cost little, not to be a server: it trusts its clients, sends bytes that were made beforehand and
throws large request bodies away. Streams of the same pace step together, as those of a real engine do: one batch, one
token for each.
"""

from __future__ import annotations

import argparse
import asyncio
import re
from typing import cast

import uvloop

from tests.bench.wire import ANSWER, CHUNK, MODELS, STREAM_END, STREAM_HEAD, StreamOrder, read_order

#: Bodies up to this many bytes may hold an order for a stream.
_SMALL = 8192
_LENGTH = re.compile(rb"(?i)\r\ncontent-length:[ ]*([0-9]+)\r\n")


class Steps:
    """All streams of one pace, given in milliseconds."""

    def __init__(self, pace: int) -> None:
        self.streams: set[Engine] = set()
        self._loop = asyncio.get_running_loop()
        self._pace = pace / 1000
        self._next: float | None = None

    def join(self, stream: Engine) -> None:
        """Let the stream take part from the next step on."""
        self.streams.add(stream)
        if self._next is None:
            self._wait(self._loop.time())

    def _wait(self, last: float) -> None:
        if self._pace:
            self._next = max(last + self._pace, self._loop.time())
            self._loop.call_at(self._next, self._step)
        else:
            self._next = last
            self._loop.call_soon(self._step)

    def _step(self) -> None:
        for stream in tuple(self.streams):
            stream.step()
        last, self._next = cast("float", self._next), None
        if self.streams:
            self._wait(last)


class Engine(asyncio.Protocol):
    """One connection."""

    def __init__(self, paces: dict[int, Steps]) -> None:
        self._paces = paces
        self._buffer = b""
        self._unread = 0
        self._order: StreamOrder | None = None
        self._left = 0
        self._crowded = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._write = self._transport.write

    def data_received(self, data: bytes) -> None:
        if self._unread:  # of a large body
            self._unread -= len(data)
            if not self._unread:
                self._write(ANSWER)
            return
        data = self._buffer + data if self._buffer else data
        end = data.find(b"\r\n\r\n") + 4
        length = _LENGTH.search(data, 0, end) if end > 4 else None
        missing = end + int(length[1]) - len(data) if length else 0
        if end < 4 or 0 < missing <= _SMALL:
            self._buffer = data
            return
        self._buffer = b""
        self._unread = missing
        if not missing:
            self._answer(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._order is not None and self._left:
            self._paces[self._order.pace].streams.discard(self)

    def pause_writing(self) -> None:
        self._crowded = True

    def resume_writing(self) -> None:
        self._crowded = False

    def step(self) -> None:
        """Send the next chunk; a stream whose client is slow is left out."""
        if self._crowded:
            return
        self._left -= 1
        if self._left > 0:
            self._write(CHUNK)
        else:
            self._write(CHUNK + STREAM_END)
            self._paces[cast("StreamOrder", self._order).pace].streams.discard(self)

    def _answer(self, request: bytes) -> None:
        order = self._order = read_order(request) if len(request) < 2 * _SMALL else None
        if order is None:
            self._write(MODELS if request.startswith(b"GET ") else ANSWER)
            return
        self._left = order.chunks - 1
        if not self._left:
            self._write(STREAM_HEAD + CHUNK + STREAM_END)
            return
        self._write(STREAM_HEAD + CHUNK)
        if order.pace not in self._paces:
            self._paces[order.pace] = Steps(order.pace)
        self._paces[order.pace].join(self)


async def serve(port: int) -> None:
    """Answer until the process is ended."""
    paces: dict[int, Steps] = {}
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Engine(paces), "127.0.0.1", port, backlog=4096, reuse_port=True)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.backend")
    parser.add_argument("--port", type=int, default=0)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
