"""The torture's clients: each knows what it asked for and says what became of it.

Rules: a client keeps what came and judges it at the end, so that reading costs little while thousands stream. Nothing
is tried again, and no error is swallowed: whatever happens is a `Kind`.
"""

from __future__ import annotations

import asyncio
import math
import re
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from time import perf_counter
from typing import cast

from tests.torture.wire import LAST_CHUNK, Kind, Order, judge, request

_LENGTH = re.compile(rb"(?i)\r\ncontent-length: ([0-9]+)\r\n")
_RETRY = re.compile(rb"(?i)\r\nretry-after: ([0-9]+)\r\n")


@dataclass(frozen=True)
class Outcome:
    """One stream's end. `first` and `total` are seconds since it was begun; `first` is 0 where nothing came."""

    kind: Kind
    first: float
    total: float
    raw: bytes


class Stream(asyncio.Protocol):
    """A client of one stream. `begun` is set with its first event, `outcome` at its end."""

    def __init__(self, order: Order, model: str) -> None:
        loop = asyncio.get_running_loop()
        self.begun = asyncio.Event()
        self.outcome: asyncio.Future[Outcome] = loop.create_future()
        self._order = order
        self._model = model
        self._parts: list[bytes] = []
        self._began = perf_counter()
        self._first = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(request(self._order.target, model=self._model, seed=self._order.seed))

    def data_received(self, data: bytes) -> None:
        self._parts.append(data)
        if not self._first and b"data: " in data:
            self._first = perf_counter() - self._began
            self.begun.set()
        # a head may end like a last chunk
        if data.endswith(LAST_CHUNK) if self._first else _is_whole(b"".join(self._parts)):
            self.transport.close()
            self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()

    def leave(self, *, reset: bool) -> None:
        """Go away in the middle."""
        if reset:
            sock = self.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def _end(self) -> None:
        self.begun.set()
        if not self.outcome.done():
            raw = b"".join(self._parts)
            total = perf_counter() - self._began
            self.outcome.set_result(Outcome(judge(raw, self._order), self._first, total, raw))


def _is_whole(raw: bytes) -> bool:
    """Whether a plain answer, an error for one, has come."""
    head, found, body = raw.partition(b"\r\n\r\n")
    length = _LENGTH.search(head + b"\r\n")
    return bool(found) and length is not None and len(body) >= int(length[1])


async def open_stream(port: int, order: Order, model: str = "alpha") -> Stream:
    """Ask for a stream. Raises OSError where nobody listens."""
    loop = asyncio.get_running_loop()
    stream = Stream(order, model)
    await loop.create_connection(lambda: stream, "127.0.0.1", port)
    return stream


async def run_stream(port: int, order: Order, model: str = "alpha") -> Outcome:
    """A stream to its end."""
    began = perf_counter()
    try:
        stream = await open_stream(port, order, model)
    except OSError:
        return Outcome(Kind.NOTHING, 0.0, perf_counter() - began, b"")
    try:
        return await stream.outcome
    finally:
        stream.transport.abort()


@dataclass(frozen=True)
class Answer:
    """A plain answer. `status` is 0 where none came."""

    status: int
    seconds: float
    retry_after: int | None = None
    body: bytes = b""
    closes: bool = False


class Asker:
    """A kept connection for plain requests, opened anew when the other side has closed it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def ask(self, raw: bytes | None = None) -> Answer:
        """What comes for it. Never raises; an answer that does not come within 30 seconds is none."""
        began = perf_counter()
        try:
            async with asyncio.timeout(30):
                return await self._ask(request() if raw is None else raw, began)
        except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError):
            self.close()
            return Answer(0, perf_counter() - began)

    async def _ask(self, raw: bytes, began: float) -> Answer:
        if self._reader is None or self._writer is None or self._reader.at_eof() or self._writer.is_closing():
            self.close()
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 20)
        self._writer.write(raw)
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = _LENGTH.search(head)
        body = await self._reader.readexactly(int(length[1]) if length else 0)
        retry = _RETRY.search(head)
        closes = b"\r\nconnection: close\r\n" in head.lower()
        seconds = perf_counter() - began
        if closes:
            self.close()
        return Answer(int(head[9:12]), seconds, int(retry[1]) if retry else None, body, closes)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None


async def ask_once(port: int, raw: bytes | None = None) -> Answer:
    """The answer on a connection of its own."""
    asker = Asker(port)
    try:
        return await asker.ask(raw)
    finally:
        asker.close()


class Probe:
    """Asks over and over while it is entered, and keeps how long each answer took."""

    def __init__(self, port: int, pause: float = 0.05) -> None:
        self.answers: list[Answer] = []
        self._port = port
        self._pause = pause

    async def __aenter__(self) -> Probe:
        self._task = asyncio.get_running_loop().create_task(self._run())
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    @property
    def lost(self) -> int:
        """Answers that were not 200."""
        return sum(answer.status != 200 for answer in self.answers)

    def p99(self) -> float:
        """Milliseconds."""
        return percentile([answer.seconds * 1000 for answer in self.answers], 0.99)

    async def _run(self) -> None:
        asker = Asker(self._port)
        try:
            while True:
                self.answers.append(await asker.ask())
                await asyncio.sleep(self._pause)
        finally:
            asker.close()


def percentile(values: Iterable[float], share: float) -> float:
    """The smallest value that so much of them do not exceed; 0 where there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0


def count(outcomes: Iterable[Outcome], *kinds: Kind) -> int:
    """How many ended so."""
    return sum(outcome.kind in kinds for outcome in outcomes)
