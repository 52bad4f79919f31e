"""One connection to a backend, and the reading of its responses.

Rules: a response's head is checked whole before a byte of it goes on; body bytes go on as they came, one write per
read. A connection returns to its pool only if the response ended exactly where its framing says, the request had
been sent whole, and both sides want it to stay; every other one is closed. It leaves the pool only if nothing has
come on it since then.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, cast

from vllm_circus.proxy.errors import BadResponse
from vllm_circus.proxy.fields import USUAL_HEAD, read_again
from vllm_circus.proxy.framing import MORE, BadFraming, Framing
from vllm_circus.proxy.intake import Piece
from vllm_circus.proxy.reply import LONGEST_HEAD, ResponseHead, framing_of, parse_response
from vllm_circus.proxy.sockets import unread, unsent, was_reset

if TYPE_CHECKING:
    from vllm_circus.proxy.backend import Backend
    from vllm_circus.proxy.early import EarlyStream
    from vllm_circus.proxy.exchange import Exchange

#: Interim (1xx) responses to one request.
_MOST_INTERIM: Final = 16
#: Bytes that are still read from a connection that failed while it was written to.
_MOST_UNREAD: Final = 256 << 10
#: Bytes of a body up to which joining it with its head is cheaper than writing both.
_JOINED: Final = 8192


class Upstream:
    """A connection that serves one request at a time.

    Attributes:
        write: sends more of the request.
        used: it has answered a request before.
        idle_since: when it went into the pool.
        silent: no byte of the present response has come.
    """

    __slots__ = (
        "_backend",
        "_buffer",
        "_exchange",
        "_framing",
        "_interim",
        "_keep_alive",
        "_method",
        "_paused",
        "_poll",
        "_transport",
        "_tunnel",
        "_unchunk",
        "_usual",
        "idle_since",
        "silent",
        "used",
        "write",
    )

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._exchange: Exchange | EarlyStream | None = None
        self._transport: asyncio.Transport | None = None
        self._framing: Framing | None = None
        self._tunnel = self._unchunk = False
        self._buffer = b""
        self._method = b""
        self._interim = 0
        self._keep_alive = True
        self._paused = False
        self._poll: select.poll | None = None
        self._usual: ResponseHead | None = None  # of the last answer that came whole, which most others resemble
        self.used = False
        self.silent = True
        self.idle_since = 0.0

    def __repr__(self) -> str:
        doing = "busy" if self._exchange else "idle"
        return f"<Upstream to {self._backend.name}, {doing}{', used' if self.used else ''}>"

    # what the exchange asks for

    def send(self, exchange: Exchange | EarlyStream, method: bytes, start: bytes, pieces: Sequence[Piece]) -> None:
        """Begin a request: its head, and what there is of its body, in one write."""
        self._exchange = exchange
        self._method = method
        self.silent = True
        if not pieces:
            self.write(start)
        elif len(pieces) == 1 and len(pieces[0]) <= _JOINED:
            self.write(start + pieces[0])
        else:
            self.write_all((start, *pieces))

    def write_all(self, pieces: Sequence[Piece]) -> None:
        """Send more of the request."""
        if self._transport is not None and pieces:
            self._transport.writelines(pieces)

    @property
    def unsent(self) -> int:
        """Bytes of the request that the backend's kernel has not taken."""
        return unsent(self._transport)

    def pause(self) -> None:
        """Read no more: the client is slow."""
        if not self._paused and not self.is_closing():
            self._paused = True
            cast("asyncio.Transport", self._transport).pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self._paused:
            self._paused = False
            if not self.is_closing():
                cast("asyncio.Transport", self._transport).resume_reading()

    def is_closing(self) -> bool:
        """Whether it is of no more use."""
        return self._transport is None or self._transport.is_closing()

    def is_quiet(self) -> bool:
        """Whether nothing has come that was not read yet: bytes that belong to nobody, or the connection's end."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return False
        poll = self._poll
        if poll is None:  # not before it is asked for again: most streams are their connection's first request
            poll = self._poll = select.poll()
            poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
        return not poll.poll(0)

    def close(self) -> None:
        """Close it; the backend sees a client that leaves, and drops the request."""
        self._exchange = None
        if self._transport is not None:
            self._transport.abort()

    # what the loop tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = cast("asyncio.Transport", transport)
        self.write = self._transport.write

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        exchange = self._exchange
        if exchange is None:  # nobody asked for anything
            self._backend.forget(self)
            self.close()
            return
        try:
            framing = self._framing
            if framing is None:
                if self._tunnel:
                    exchange.relay(data)
                else:
                    self._head(exchange, data)
            elif self._unchunk:
                self._body(exchange, framing, data)
            else:
                end = framing.feed(data)
                if end == MORE:
                    exchange.relay(data)
                else:
                    self._last(exchange, data, end)
        except (BadResponse, BadFraming) as error:
            self.close()
            exchange.broken(str(error))

    def eof_received(self) -> None:
        """See asyncio.Protocol: the transport closes itself after this."""
        exchange = self._exchange
        if exchange is None:
            self._backend.forget(self)
        elif self._framing is not None and self._framing.ends_with_connection:
            self._keep_alive = False
            self._ended(exchange)
        else:
            self._lost(exchange, reset=was_reset(self._transport))

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._backend.closed(self)
        reset = isinstance(exc, ConnectionError)
        if reset and self._exchange is not None:
            # An engine that answers early and hangs up resets what still goes out to it: its answer was there first.
            rest = unread(self._transport, _MOST_UNREAD)
            if rest:
                self.data_received(rest)
        if self._exchange is not None:
            self._lost(self._exchange, reset=reset)
        else:
            self._backend.forget(self)
        self._transport = None

    def pause_writing(self) -> None:
        """See asyncio.Protocol: the backend takes the request slowly.

        A client whose request is whole has nothing to be held off, and is read on to see it leave.
        """
        exchange = self._exchange
        if exchange is not None and (not exchange.complete or exchange.is_tunnel):
            exchange.down.pause_reading()

    def resume_writing(self) -> None:
        """See asyncio.Protocol: what a whole request's client waits with is later requests, for want of room."""
        exchange = self._exchange
        if exchange is not None and (not exchange.complete or exchange.is_tunnel):
            exchange.down.resume_reading()

    # reading

    def _head(self, exchange: Exchange | EarlyStream, data: bytes) -> None:
        self.silent = False
        usual = self._usual
        if usual is not None and not self._buffer:
            end, size = read_again(data, usual.before, usual.after)
            if size and end + size == len(data) and self._method != b"HEAD":
                self._whole(exchange, usual, data, end)
                return
        data = self._buffer + data if self._buffer else data
        while True:
            end = data.find(b"\r\n\r\n") + 4
            if end < 4:
                if len(data) > LONGEST_HEAD:
                    raise BadResponse("the engine's header has no end")
                self._buffer = data
                return
            head, length = parse_response(data[:end])
            if head.status >= 200:
                break
            if head.status == 101:
                self._switch(exchange, head, data[end:])
                return
            self._interim += 1
            if self._interim > _MOST_INTERIM:
                raise BadResponse("the engine sent too many interim responses")
            exchange.interim(head)
            data = data[end:]
        self._buffer = b""
        if length is not None and end + length == len(data) and length and self._method != b"HEAD" and head.has_body:
            self._usual = head if end <= USUAL_HEAD else None
            self._whole(exchange, head, data, end)
        else:
            self._begin(exchange, head, length, data, end)

    def _whole(self, exchange: Exchange | EarlyStream, head: ResponseHead, data: bytes, end: int) -> None:
        """The usual case: a whole answer in one read."""
        self._exchange = None
        self._interim = 0
        self.used = True
        if self._paused:
            self.resume()
        exchange.answer(self, head, data, end, reusable=head.keep_alive and self._is_free())

    def _begin(
        self, exchange: Exchange | EarlyStream, head: ResponseHead, length: int | None, data: bytes, end: int
    ) -> None:
        self._keep_alive = head.keep_alive
        framing = framing_of(head, length, self._method)
        if framing is None:
            exchange.relay_head(exchange.respond(head, length, None))
            self._keep_alive = self._keep_alive and end == len(data)
            self._ended(exchange)
            return
        self._unchunk = head.is_chunked and (not exchange.head.minor or (exchange.hides_usage and head.is_stream))
        # the first piece is read before the status goes out: a body that is wrong from its start is still a 502
        piece, finished = self._piece(framing, data[end:])
        self._framing = framing
        start = exchange.respond(head, length, framing)
        if end == len(data):
            exchange.relay_head(start)
        else:
            exchange.relay(piece, start)
        if finished:
            self._ended(exchange)

    def _body(self, exchange: Exchange | EarlyStream, framing: Framing, data: bytes) -> None:
        piece, finished = self._piece(framing, data)
        exchange.relay(piece)
        if finished:
            self._ended(exchange)

    def _last(self, exchange: Exchange | EarlyStream, data: bytes, end: int) -> None:
        """The body ends in this piece; something that follows it belongs to nobody."""
        if end != len(data):
            self._keep_alive = False
            data = data[:end]
        exchange.relay(data)
        self._ended(exchange)

    def _piece(self, framing: Framing, data: bytes) -> tuple[bytes, bool]:
        """What of this data goes to the client, and whether the body ends in it. Raises BadFraming."""
        parts: list[bytes] | None = [] if self._unchunk else None
        end = framing.feed(data, 0, parts)
        if end not in {MORE, len(data)}:  # something follows the response: it belongs to nobody
            self._keep_alive = False
            data = data[:end]
        return data if parts is None else b"".join(parts), end != MORE

    def _switch(self, exchange: Exchange | EarlyStream, head: ResponseHead, rest: bytes) -> None:
        asked = exchange.asks_tunnel and exchange.complete
        if not asked or head.read.get(b"upgrade", b"").lower() != exchange.head.upgrade:
            raise BadResponse("the engine changed the protocol without being asked")
        self._tunnel = True
        self._keep_alive = False
        exchange.tunnel(head, rest)

    def _ended(self, exchange: Exchange | EarlyStream) -> None:
        """The response is whole."""
        self._exchange = None
        self._framing = None
        self._unchunk = False
        self._interim = 0
        self.used = True
        self.resume()
        if self._keep_alive and exchange.complete and self._is_free():
            self._backend.release(self, self._backend.now())
        else:
            self.close()
        exchange.finish()

    def _is_free(self) -> bool:
        """Whether the next request may use it: an answer can come before the request has all gone out."""
        transport = self._transport
        return transport is not None and not transport.is_closing() and not transport.get_write_buffer_size()

    def _lost(self, exchange: Exchange | EarlyStream, *, reset: bool) -> None:
        self._exchange = None
        self._backend.closed(self)  # the request may go out again, on another connection
        exchange.lost(self, reset=reset)
