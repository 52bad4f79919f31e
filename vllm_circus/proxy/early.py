"""A stream that is answered while it waits: 200 and comment lines first, then what the engine says.

Rules:
- Only for a request that is here whole, of HTTP/1.1, for a path that streams, with `"stream": true`. A comment is a
  line that every reader of events passes over (HTML standard, "Server-sent events"); it shows whoever is in between
  that somebody is there.
- The status is out before it is known what comes. So the engine's head goes nowhere, and its body goes on in chunks of
  ours; to the connection to the engine this is a client that takes no chunks.
- What would have been another status is an event with the error, and the body has no end: it never looks like success.
"""

from __future__ import annotations

import json
from dataclasses import replace
from email.utils import formatdate
from math import inf
from typing import TYPE_CHECKING, Final

from vllm_circus.logline import clean
from vllm_circus.proxy.errors import EngineRefusal, Refused
from vllm_circus.proxy.members import find_members
from vllm_circus.proxy.usage import as_chunk

if TYPE_CHECKING:
    from collections.abc import Callable

    from vllm_circus.proxy.exchange import Exchange
    from vllm_circus.proxy.framing import Framing
    from vllm_circus.proxy.reply import ResponseHead
    from vllm_circus.proxy.upstream import Upstream

#: The paths whose answers may be streams of events.
_PATHS: Final = frozenset((b"/v1/chat/completions", b"/v1/completions", b"/v1/responses", b"/v1/messages"))
_STREAM: Final = b"stream"
#: Bytes of an engine's error that are read.
_LONGEST_ERROR: Final = 64 << 10


class EarlyStream:
    """Stands between an exchange that has gone ahead and its engine's connection, which takes it for the exchange.

    Attributes:
        head: the client's, as of HTTP/1.0: the body comes without chunks.
    """

    __slots__ = (
        "_error",
        "_exchange",
        "_refused",
        "asks_tunnel",
        "complete",
        "down",
        "head",
        "hides_usage",
        "is_tunnel",
    )

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._refused: int | None = None  # the engine's status where it is no stream
        self._error = bytearray()
        self.down = exchange.down
        self.head = replace(exchange.head, minor=0)
        self.complete = True
        self.is_tunnel = self.asks_tunnel = self.hides_usage = False

    def answer(self, upstream: Upstream, head: ResponseHead, data: bytes, end: int, *, reusable: bool) -> None:
        """See Exchange."""
        self.respond(head, None, None)
        self.relay(data[end:])
        self._exchange.let_go(upstream, reusable=reusable)
        self.finish()

    def respond(self, head: ResponseHead, length: int | None, framing: Framing | None) -> bytes:
        """See Exchange: of this head nothing goes to the client."""
        self._error.clear()
        self._refused = None if head.status == 200 and head.is_stream else head.status
        if self._refused is None:
            self._exchange.respond(head, length, framing)
            self._exchange.go_on_ahead()
        return b""

    def interim(self, head: ResponseHead) -> None:
        """See Exchange: no head can follow the one that went out."""

    def relay_head(self, start: bytes) -> None:
        """See Exchange: the body is empty, or comes later."""

    def relay(self, data: bytes, start: bytes = b"") -> None:  # noqa: ARG002 - the client has had its head
        """See Exchange."""
        if self._refused is None:
            self._exchange.relay(data)
        elif len(self._error) < _LONGEST_ERROR:
            self._error += data

    def finish(self) -> None:
        """See Exchange."""
        if self._refused is None:
            self._exchange.finish_ahead()
        else:
            self._exchange.broken(_refusal(self._refused, bytes(self._error)))

    def tunnel(self, head: ResponseHead, rest: bytes) -> None:
        """See Exchange: nobody asked for one."""

    def lost(self, upstream: Upstream, *, reset: bool) -> None:
        """See Exchange."""
        self._exchange.lost(upstream, reset=reset)

    def broken(self, why: str) -> None:
        """See Exchange."""
        self._exchange.broken(why)


def first_comment(exchange: Exchange, since: float, interval: float) -> float:
    """When the first comment is due for a request that waits since then; infinity where none ever is."""
    is_stream = exchange.complete and exchange.head.minor and exchange.head.path in _PATHS and _streams(exchange)
    return since + interval if is_stream else inf


def head_of(exchange: Exchange, *, keep_alive: bool) -> bytes:
    """The head that goes out before the engine's."""
    lines = (
        b"HTTP/1.1 200 OK",
        b"date: " + formatdate(usegmt=True).encode(),
        b"content-type: text/event-stream; charset=utf-8",
        b"cache-control: no-cache",
        b"x-accel-buffering: no",
        b"transfer-encoding: chunked",
        b"x-request-id: " + exchange.request_id,
        *(() if keep_alive else (b"connection: close",)),
    )
    return b"\r\n".join(lines) + b"\r\n" + exchange.prepared.cors + b"\r\n"


def comment(model: str) -> bytes:
    """What a stream is sent while it waits."""
    return b": waiting for %b\n\n" % clean(model).encode()


def chunked(write: Callable[[bytes], object]) -> Callable[[bytes], None]:
    """Writes each piece as a chunk of its own."""

    def write_chunk(data: bytes) -> None:
        if data:
            write(as_chunk(data))

    return write_chunk


def _streams(exchange: Exchange) -> bool:
    """Whether the client asks for a stream; of several values parsers take the last."""
    body = exchange.whole()
    try:
        spans = find_members(body, (_STREAM,)).members.get(_STREAM, [])
    except Refused:  # the engine will say what is wrong with it
        return False
    if not spans:
        return False
    begin, end = spans[-1]
    return body[begin:end] == b"true"


def _refusal(status: int, body: bytes) -> Refused:
    """What the engine said instead of a stream; its own words where they are an error in JSON."""
    if status < 400:
        return Refused(502, "bad_response", "The engine's answer is not a stream.")
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    is_error = isinstance(document, dict) and isinstance(document.get("error"), dict)
    return EngineRefusal(status, json.dumps(document).encode() if is_error else None)
