"""The HTTP server of the simulator: one asyncio protocol per connection, llhttp underneath.

It writes what uvicorn writes: `date` and `server` first, lower-case names, one event of a stream per chunk, the
connection closed after five idle seconds, and a closed connection cancels the request that it waits for. A handler
is a coroutine function from `Request` to `Reply` (a whole body) or `Stream` (an iterator of chunks).

Hostile answers for tests of other programs are made here as well (`Mangle`), since they are about bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from http import HTTPStatus

import httptools

from . import console

HIGH_WATER = 64 * 1024
"""Unsent bytes above which a stream waits for its reader."""


@dataclass(slots=True)
class Request:
    """A request that has been read whole."""

    method: str
    target: str
    version: str
    headers: dict[str, str]
    body: bytes
    client: str

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        """What follows the question mark, or nothing."""
        return self.target.partition("?")[2]


@dataclass(slots=True)
class Reply:
    """An answer with a whole body."""

    status: int = 200
    body: bytes = b""
    content_type: str | None = None
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(slots=True)
class Stream:
    """An answer in chunks; the iterator is closed when the client goes."""

    chunks: AsyncGenerator[bytes, None]
    content_type: str = "text/event-stream; charset=utf-8"
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(slots=True)
class Mangle:
    """What is to be wrong with one answer. Chunks are counted from 1; a size in bytes."""

    close_first: bool = False
    garbage: bool = False
    length_error: int = 0
    close_after: int | None = None
    bad_chunk: bool = False
    header_size: int = 0
    on_chunk: Callable[[int], None] | None = None


@dataclass(slots=True)
class Answer:
    """What a handler gives back: the answer, the headers that all answers have, and what is to be wrong with it."""

    reply: Reply | Stream
    common: tuple[tuple[str, str], ...] = (("vary", "Origin"),)
    mangle: Mangle | None = None


Handler = Callable[[Request], Awaitable[Answer]]


@dataclass(slots=True)
class Settings:
    """What all connections of a server share. `keep_alive` in seconds."""

    handler: Handler
    keep_alive: float = 5.0
    access_log: bool = True
    connections: set[Connection] = field(default_factory=set)
    closed: asyncio.Event | None = None

    @property
    def closing(self) -> bool:
        """Whether connections are closed after the answer that they wait for."""
        return self.closed is not None

    async def close(self) -> None:
        """Close connections that wait for nothing, and wait until the others have their answer."""
        self.closed = asyncio.Event()
        for connection in list(self.connections):
            if not connection.busy:
                connection.close()
        while self.connections:
            self.closed.clear()
            await self.closed.wait()


class _Closed(Exception):
    """The connection was closed on purpose in the middle of an answer."""


class Connection(asyncio.Protocol):
    """One connection: requests are read ahead, and answered one after the other."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._requests: deque[tuple[Request, bool]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._writable: asyncio.Future[None] | None = None
        self._transport: asyncio.Transport | None = None
        self._client = ""
        self._target = b""
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []

    # --- what the event loop says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has come."""
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")  # noqa: S101 - for the checker
        self._transport = transport  # type: ignore[assignment]  # uvloop's transport is no subclass
        transport.set_write_buffer_limits(high=HIGH_WATER)  # type: ignore[attr-defined]  # same
        peer = transport.get_extra_info("peername")
        self._client = f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) and len(peer) > 1 else ""
        self._settings.connections.add(self)

    def data_received(self, data: bytes) -> None:
        """Feed what came to the parser."""
        self._stop_idling()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # not supported: the request is answered as if the client had not asked for it
        except httptools.HttpParserError:
            self._refuse()

    def eof_received(self) -> None:
        """The client has ended: so does the connection, as with uvicorn."""

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """The client has gone: so does the request that it waited for."""
        self._settings.connections.discard(self)
        if self._settings.closed is not None:
            self._settings.closed.set()
        self._stop_idling()
        self._transport = None
        self.resume_writing()
        if self._task is not None:
            self._task.cancel()

    def pause_writing(self) -> None:
        """The client reads more slowly than the answer is made."""
        self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        """The client has caught up."""
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    # --- what the parser says

    def on_message_begin(self) -> None:
        """A new request begins."""
        self._target, self._headers, self._body = b"", {}, []

    def on_url(self, target: bytes) -> None:
        """A part of the target."""
        self._target += target

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header."""
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """The head is whole."""
        if self._headers.get("expect", "").lower() == "100-continue":
            self._write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, data: bytes) -> None:
        """A part of the body."""
        self._body.append(data)

    def on_message_complete(self) -> None:
        """The request is whole. Whether the connection stays is only known now: the parser forgets it afterwards."""
        request = Request(
            method=self._parser.get_method().decode(),
            target=self._target.decode("latin-1"),
            version=self._parser.get_http_version(),
            headers=self._headers,
            body=b"".join(self._body),
            client=self._client,
        )
        self._requests.append((request, self._parser.should_keep_alive()))
        if self._task is None:
            self._task = self._loop.create_task(self._serve())
        elif self._transport is not None:
            self._transport.pause_reading()

    # --- answering

    @property
    def busy(self) -> bool:
        """Whether a request is being answered."""
        return self._task is not None

    def close(self) -> None:
        """Close the connection as soon as what was written has been sent."""
        if self._transport is not None:
            self._transport.close()

    async def _serve(self) -> None:
        """Answer what has been read, in order."""
        keep = True
        try:
            while self._requests and keep and self._transport is not None:
                request, keep = self._requests.popleft()
                keep = keep and not self._settings.closing
                await self._answer(request, keep)
        except _Closed:
            keep = False
        finally:
            self._task = None
            if self._transport is not None:
                self._after(keep)

    def _after(self, keep: bool) -> None:
        """Wait for the next request, or end."""
        if not keep or self._transport is None:
            self.close()
            return
        self._transport.resume_reading()
        self._idle = self._loop.call_later(self._settings.keep_alive, self.close)

    def _stop_idling(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    async def _answer(self, request: Request, keep: bool) -> None:
        answer = await self._settings.handler(request)
        mangle = answer.mangle or Mangle()
        if mangle.garbage:
            self._write(b"\x16\x03\x01\x00\xa5 this is not HTTP\r\n\r\n")
        if mangle.garbage or mangle.close_first:
            raise _Closed
        reply = answer.reply
        common = answer.common + ((("x-padding", "x" * mangle.header_size),) if mangle.header_size else ())
        if isinstance(reply, Stream):
            self._log(request, reply.status)
            await self._stream(reply, common, keep, mangle, chunked=request.version != "1.0")
            return
        data = head(reply.status, self._reply_headers(reply, mangle), common, keep)
        self._write(data + (b"" if request.method == "HEAD" else reply.body))
        self._log(request, reply.status)
        if mangle.length_error:
            self._write(b"x" * -mangle.length_error)
            raise _Closed

    def _reply_headers(self, reply: Reply, mangle: Mangle) -> list[tuple[str, str]]:
        """Headers in the order in which uvicorn has them: `content-length` and `content-type` first."""
        headers = [("content-length", str(len(reply.body) + mangle.length_error))]
        if reply.content_type:
            headers.append(("content-type", reply.content_type))
        # Headers that replace others' usual place (allow, location) come before or after as the framework has it.
        extra = list(reply.headers)
        return [*extra, *headers] if any(name == "allow" for name, _ in extra) else [*headers, *extra]

    async def _stream(
        self, stream: Stream, common: tuple[tuple[str, str], ...], keep: bool, mangle: Mangle, *, chunked: bool
    ) -> None:
        coding = (("transfer-encoding", "chunked"),) if chunked else ()
        headers = [("content-type", stream.content_type), *stream.headers]
        self._write(head(stream.status, headers, common, keep, last=coding))
        number = 0
        async with contextlib.aclosing(stream.chunks) as chunks:
            async for chunk in chunks:
                number += 1
                size = b"zz" if mangle.bad_chunk else b"%x" % len(chunk)
                self._write(size + b"\r\n" + chunk + b"\r\n" if chunked else chunk)
                if mangle.on_chunk is not None:
                    mangle.on_chunk(number)
                if number == mangle.close_after:
                    raise _Closed
                if self._writable is not None:
                    await self._writable
        if chunked:
            self._write(b"0\r\n\r\n")
        else:
            raise _Closed

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def _log(self, request: Request, status: int) -> None:
        if self._settings.access_log:
            console.access(request.client, request.method, request.target, request.version, status_text(status))

    def _refuse(self) -> None:
        """What uvicorn says to bytes that are no request."""
        console.write(console.STDERR, "WARNING:  Invalid HTTP request received.\n")
        body = b"Invalid HTTP request received."
        headers = [("content-type", "text/plain; charset=utf-8"), ("content-length", str(len(body)))]
        self._write(head(400, headers, (), keep=False) + body)
        self.close()


def status_text(status: int) -> str:
    """A status with its phrase: `404 Not Found`."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"{status} "


def head(
    status: int,
    headers: list[tuple[str, str]],
    common: tuple[tuple[str, str], ...],
    keep: bool,
    last: tuple[tuple[str, str], ...] = (),
) -> bytes:
    """The status line and the headers, as bytes, with the empty line."""
    date = email.utils.formatdate(time.time(), usegmt=True)
    closing = () if keep else (("connection", "close"),)
    every = (("date", date), ("server", "uvicorn"), *headers, *common, *closing, *last)
    lines = "".join(f"{name}: {value}\r\n" for name, value in every)
    return f"HTTP/1.1 {status_text(status)}\r\n{lines}\r\n".encode("latin-1", "replace")
