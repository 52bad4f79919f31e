"""The load: clients that ask as fast as they are answered, and clients that read streams.

Rules: every answer is checked (status, length, number of events); the first wrong one ends the benchmark, so no figure
stands for errors answered fast. Clients share one `Tally`, which is what a window of time is cut out of.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from time import perf_counter
from typing import cast

from tests.bench.wire import END_EVENTS, StreamOrder, make_request

_LENGTH = re.compile(rb"(?i)\r\ncontent-length:[ ]*([0-9]+)\r\n")
_END_OF_BODY = b"0\r\n\r\n"
_AT_A_TIME = 50  # connections being opened: less than any backlog


class BenchError(Exception):
    """The benchmark cannot go on: what went wrong is worth more than a figure."""


class Tally:
    """What all clients of one measure have seen.

    Attributes:
        events: answers, or chunks of streams.
        reads: times that bytes of streams came: fewer than `events` where chunks were merged on their way.
        times: seconds until the answer, or until a stream's first chunk; `timed` is set when there are some.
        ahead: chunks of other streams that came in that time.
        begun: clients that have been answered at least once; `all_begun` is set when that is all of them.
        ended: clients that have had all that they wanted; `all_ended` is set when that is all of them.
        full: set at `most` events.
    """

    def __init__(self, clients: int, most: int, failed: asyncio.Future[None] | None = None) -> None:
        self.events = self.reads = 0
        self.begun = self.ended = 0
        self.all_begun = asyncio.Event()
        self.all_ended = asyncio.Event()
        self.timed = asyncio.Event()
        self.times: list[float] = []
        self.ahead: list[int] = []
        self.full = asyncio.Event()
        self.failed: asyncio.Future[None] = failed or asyncio.get_running_loop().create_future()
        self._clients = clients
        self._most = most

    def time(self, seconds: float, *, is_first: bool) -> None:
        self.times.append(seconds)
        self.timed.set()
        self.begun += is_first
        if self.begun == self._clients:
            self.all_begun.set()

    def forget_times(self) -> None:
        self.times.clear()
        self.ahead.clear()
        self.timed.clear()

    def add(self, events: int) -> None:
        self.events += events
        if self.events >= self._most:
            self.full.set()

    async def count_to(self, most: int) -> None:
        """Wait until there are so many events."""
        before, self._most = self._most, most
        self.full.clear()
        await self.full.wait()
        self._most = before
        self.full.clear()

    def end(self) -> None:
        self.ended += 1
        if self.ended == self._clients:
            self.all_ended.set()

    def fail(self, why: str) -> None:
        if not self.failed.done():
            self.failed.set_exception(BenchError(why))


class Client(asyncio.Protocol):
    """One kept connection. `close()` ends it without a complaint."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._sent = 0.0
        self._answers = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is not None:
            self._tally.fail(f"a connection was closed after {self._answers} answers ({exc or 'without an error'})")

    def close(self) -> None:
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()

    def start(self) -> None:
        """Ask for the first time."""
        raise NotImplementedError

    def _send(self, request: bytes) -> None:
        self._sent = perf_counter()
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(request)

    def _count_answer(self) -> None:
        self._tally.time(perf_counter() - self._sent, is_first=not self._answers)
        self._answers += 1

    def _head(self, data: bytes) -> tuple[bytes, bytes] | None:
        """Head and rest, once the head is whole."""
        data = self._buffer + data if self._buffer else data
        end = data.find(b"\r\n\r\n") + 4
        if end < 4:
            self._buffer = data
            return None
        self._buffer = b""
        if not data.startswith(b"HTTP/1.1 200 "):
            self._tally.fail(f"answered {data[:400]!r}")
            return None
        return data[:end], data[end:]


class Asker(Client):
    """Sends a request again as soon as it is answered: one of `requests` after the other, from number `first` on."""

    def __init__(self, tally: Tally, requests: Sequence[bytes], first: int = 0, step: int = 1) -> None:
        super().__init__(tally)
        self._requests = requests
        self._next = first
        self._step = step
        self._unread = 0
        self._in_chunks = False
        self._tail = b""

    def start(self) -> None:
        requests = self._requests
        self._send(requests[self._next % len(requests)])
        self._next += self._step

    def data_received(self, data: bytes) -> None:
        if self._in_chunks:
            self._read_chunks(data)
            return
        if self._unread:
            self._unread -= len(data)
        else:
            parts = self._head(data)
            if parts is None:
                return
            length = _LENGTH.search(parts[0])
            if length is None:
                self._in_chunks = True
                self._read_chunks(parts[1])
                return
            self._unread = int(length[1]) - len(parts[1])
        if self._unread < 0:
            self._tally.fail("more was answered than asked for")
        elif not self._unread:
            self._answered()

    def _read_chunks(self, data: bytes) -> None:
        self._tail = (self._tail + data)[-5:]
        if self._tail == _END_OF_BODY:
            self._in_chunks, self._tail = False, b""
            self._answered()

    def _answered(self) -> None:
        tally = self._tally
        self._count_answer()
        tally.add(1)
        self.start()


class Sharer(Asker):
    """One of many connections of which a few ask at a time: those that `begin` first, then whoever rests longest."""

    def __init__(self, tally: Tally, requests: Sequence[bytes], resting: deque[Sharer], *, begins: bool) -> None:
        super().__init__(tally, requests)
        self._resting = resting
        self._begins = begins

    def start(self) -> None:
        if self._begins:
            super().start()
        else:
            self._resting.append(self)

    def _answered(self) -> None:
        self._count_answer()
        self._tally.add(1)
        self._resting.append(self)
        Asker.start(self._resting.popleft())


class Idler(Client):
    """A connection that has been used once and is kept."""

    def start(self) -> None:
        self._send(make_request())

    def data_received(self, data: bytes) -> None:
        if not self._answers:
            parts = self._head(data)
            if parts is not None:
                self._count_answer()


class Listener(Client):
    """Reads one stream after the other, or only one; the first has `first` chunks, that many do not all begin at once.

    `rest`: it asks again after a while between 0 and so many seconds, else as soon as a stream has ended: streams of
    one engine end while it sends all of them a chunk.
    `exact`: as many events must come as the engine sent. Else as many as it was asked for: some proxies write anew
    what ends a stream.
    """

    def __init__(
        self, tally: Tally, order: StreamOrder, first: int, *, exact: bool, again: bool = True, rest: float = 0.0
    ) -> None:
        super().__init__(tally)
        self._order = order
        self._chunks = first
        self._rest = rest
        self._random = Random(first)
        self._before = 0  # events of all streams when it asked
        self._exact = exact
        self._again = again
        self._missing = 0
        self._in_body = False
        self._tail = b""

    def start(self) -> None:
        self._missing = self._chunks + END_EVENTS
        self._in_body = False
        self._tail = b""
        self._before = self._tally.events
        self._send(make_request(order=StreamOrder(self._chunks, self._order.pace)))

    def data_received(self, data: bytes) -> None:
        if not self._in_body:
            parts = self._head(data)
            if parts is None:
                return
            self._in_body = True
            data = parts[1]
            if not data:
                return
        events = data.count(b"\n\n") + (self._tail[-1:] == b"\n" and data[:1] == b"\n")
        if self._sent and events:
            self._tally.ahead.append(self._tally.events - self._before)
            self._count_answer()
            self._sent = 0.0
        self._missing -= events
        self._tally.reads += 1
        self._tally.add(events)
        self._tail = data[-5:] if len(data) > 4 else (self._tail + data)[-5:]
        if self._tail == _END_OF_BODY:
            self._ended()

    def _ended(self) -> None:
        if self._missing and (self._exact or self._missing > END_EVENTS):
            self._tally.fail(f"a stream of {self._chunks} chunks ended with {self._missing} missing")
            return
        self._chunks = self._order.chunks
        if not self._again:
            self._tally.end()
        elif self._rest:
            asyncio.get_running_loop().call_later(self._random.random() * self._rest, self.start)
        else:
            self.start()


async def connect(port: int, make: Callable[[int], Client], count: int) -> list[Client]:
    """So many clients of a loopback port, connected and not yet asking; `make` is told each one's number."""
    loop = asyncio.get_running_loop()
    clients: list[Client] = []
    for begin in range(0, count, _AT_A_TIME):
        numbers = range(begin, min(begin + _AT_A_TIME, count))
        opening = (loop.create_connection(partial(make, number), "127.0.0.1", port) for number in numbers)
        clients += [client for _, client in await asyncio.gather(*opening)]
    return clients
