"""One client's connection: requests in, one after the other, and the answers in the same order.

Rules: bytes that belong to the next request wait, bounded, until the present one is answered and its answer is taken:
who asks without reading is not listened to either. Nobody's large upload holds the loop for longer than one read.
What is malformed is answered once and ends the connection; before it is closed for good, what the client still sends
is read for a moment, since a reset would take the answer away from it. Time limits are looked at a few times a
second, not per byte.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from vllm_circus.proxy.connection import DRAIN_GRACE, LARGE_READ, Connection
from vllm_circus.proxy.errors import BadMessage, Refused, answer
from vllm_circus.proxy.exchange import Exchange
from vllm_circus.proxy.fields import USUAL_HEAD
from vllm_circus.proxy.framing import MORE
from vllm_circus.proxy.glance import SMALL, model_at_a_glance
from vllm_circus.proxy.head import check_beginning
from vllm_circus.proxy.pace import body_deadline
from vllm_circus.proxy.reception import NOTHING
from vllm_circus.proxy.sockets import has_ended

if TYPE_CHECKING:
    import asyncio

    from vllm_circus.proxy.relay import Relay

#: Bytes of later requests that may wait for the present one.
PIPELINE_ROOM: Final = 64 << 10
#: Requests that one connection may have answered in one turn of the loop.
MOST_IN_A_TURN: Final = 16
#: Seconds after a client's half-close before it is asked whether it is still there, and until its answer is looked for.
_HALF_CLOSE_PROBE: Final = 0.25
_HALF_CLOSE_ANSWER: Final = 0.1
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_EMPTY_LINES: Final = re.compile(rb"\A(?:\r\n)++")


class Downstream(Connection):
    """See the module."""

    __slots__ = ("_half_closed", "_parsing", "_usual")

    def __init__(self, relay: Relay) -> None:
        super().__init__(relay)
        self._parsing = self._half_closed = False
        self._usual = NOTHING  # the head that its client sends over and over

    def __repr__(self) -> str:
        doing = "busy" if self._exchange else "lingering" if self._lingering else "idle"
        return f"<Downstream from {self.peer.decode()}, {doing}>"

    # what the loop tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        super().connection_made(transport)
        self._relay.joined(self)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        exchange = self._exchange
        if exchange is None:
            if self._lingering:
                self._discarded += len(data)
            elif self._buffer or self.write_paused or not self._plain(data):
                self._requests(data)
        elif exchange.is_tunnel:
            exchange.send_on(data)
        elif exchange.complete:
            self._keep(data)
        else:
            self._body(exchange, data, 0)
        if len(data) >= LARGE_READ:
            self._take_turns()

    def eof_received(self) -> bool:
        """See asyncio.Protocol: a half-close is one only if a request is whole and waits for its answer.

        asyncio's TLS knows none: nothing can be written after the client's goodbye.
        """
        exchange = self._exchange
        if self.secure:
            if exchange is not None:
                self.abort()
            return False
        if exchange is None and not self._lingering and b"\r\n\r\n" in self._buffer:  # it will have its turn
            self._half_closed = True
            return True
        if exchange is None or not exchange.complete or exchange.is_tunnel:
            return False
        self._half_closed = True
        self._relay.loop.call_later(_HALF_CLOSE_PROBE, self._probe, exchange)
        return True

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the name is asyncio's
        """See asyncio.Protocol."""
        exchange, self._exchange = self._exchange, None
        self._lingering = True
        if exchange is not None:
            exchange.abort()
        self._relay.left(self)

    def pause_writing(self) -> None:
        """See asyncio.Protocol."""
        self.write_paused = True
        if self._exchange is not None:
            self._exchange.pause()

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        self.write_paused = False
        if self._exchange is not None:
            self._exchange.resume()
        elif not self._lingering:
            limits = self._relay.limits
            self._deadline = self._relay.clock() + (limits.header_timeout if self._buffer else limits.keep_alive)
            self._relay.loop.call_soon(self._requests, b"")

    # what the exchange asks for

    def resume_reading(self) -> None:
        """Read on."""
        super().resume_reading()
        if self._exchange is not None and not self._exchange.complete:
            self._expect_more(self._exchange)

    def refusal(self, error: Refused, exchange: Exchange) -> tuple[bytes, bool]:
        """The answer to a request that goes no further, and whether the connection stays."""
        relay, head = self._relay, exchange.head
        keep = exchange.complete and head.keep_alive and not isinstance(error, BadMessage) and not relay.draining
        stays = b"connection: keep-alive\r\n" if keep and not head.minor else b""
        data = answer(
            error,
            anthropic=exchange.is_anthropic,
            request_id=exchange.request_id,
            keep_alive=keep,
            head_only=head.method == b"HEAD",
            extra=exchange.prepared.cors + stays,
        )
        return data, keep

    def exchange_over(self, *, keep_alive: bool, now: float) -> None:
        """The answer is written: on to the next request, or to the end."""
        exchange, self._exchange = self._exchange, None
        relay = self._relay
        if not keep_alive or (self._half_closed and not self._buffer and not self._parsing):
            self._take_leave(complete=exchange is not None and exchange.complete, now=now)
            return
        limit = DRAIN_GRACE if relay.draining else relay.limits.keep_alive
        self._deadline = now + (relay.limits.idle_timeout if self.write_paused else limit)
        if (self._buffer or self._read_paused) and not self._parsing:
            relay.loop.call_soon(self._requests, b"")

    def _take_leave(self, *, complete: bool, now: float) -> None:
        """The last answer is written: close, and where the client has sent more let it read that answer first."""
        more = bool(self._buffer) or self._read_paused or not complete
        self._buffer = b""
        self._close(linger=more)
        if not more and (self.write_paused or not self.secure):  # TLS may wait for a goodbye alone
            self._await_reader(now)

    def cut(self, *, reset: bool) -> None:
        """End the connection in the middle of an answer; with `reset` a plain end would look like a whole answer."""
        self._exchange = None
        self._buffer = b""
        if reset:
            self._reset()
        else:
            self._close(linger=False)

    def forget(self) -> None:
        """Keys and limits have changed: what was read before is not to be kept for the next request."""
        self._usual = NOTHING

    def end(self) -> None:
        """The worker ends: say so to who waits for an answer."""
        if self._exchange is not None:
            self._exchange.fail(Refused(503, "shutting_down", "The proxy is being stopped.", retry_after=1))
        else:
            self.abort()

    def check(self, now: float) -> None:
        """Called a few times a second: whether a time limit has passed."""
        exchange = self._exchange
        if exchange is not None:
            self._check_exchange(exchange, now)
        elif now < self._deadline:
            return
        elif self._lingering:
            self._linger_on(now)
        elif self._buffer:
            self._malformed(BadMessage("The request's header took too long.", status=408, code="request_timeout"))
        else:
            self.abort()

    def _check_exchange(self, exchange: Exchange, now: float) -> None:
        if self._read_paused:
            self._look_for_end(exchange)
        if exchange.complete or exchange.waiting or exchange.status:
            exchange.check(now)
            if self._half_closed:
                self._abort_if_left()
        if exchange.complete or exchange.status or self._exchange is not exchange or now < self._deadline:
            return
        if not self._read_paused:
            exchange.fail(BadMessage("The request's body stopped coming.", status=408, code="request_timeout"))
        elif not exchange.waiting:
            exchange.fail(Refused(504, "engine_timeout", "The engine does not take the request.", retry_after=1))

    def _look_for_end(self, exchange: Exchange) -> None:
        """A client that is not read from is not seen to leave: ask its kernel's word for it."""
        if self._half_closed or exchange.is_tunnel or not has_ended(self._transport):
            return
        if exchange.complete:
            self.eof_received()
        else:  # what is left of the body is here, or never comes
            self.resume_reading()

    # reading

    def _plain(self, data: bytes) -> bool:
        """Take a request that is whole and plain in one go; False leaves everything to `_requests`."""
        relay = self._relay
        reception = relay.reception
        prepared, end, size = reception.read_plain(data, self._usual)
        if not size or size != len(data) - end or size > reception.max_body:
            return False
        self._usual = prepared if end <= USUAL_HEAD else NOTHING
        model = model_at_a_glance(data, end)
        if model is None:
            return False
        request_id = relay.request_id(prepared.head.read.get(b"x-request-id"))
        exchange = self._exchange = Exchange(relay, self, prepared, size, request_id)
        exchange.take_whole(data[end:] if size <= SMALL else memoryview(data)[end:], model)
        return True

    def _requests(self, data: bytes) -> None:
        """Take as many requests as are whole and answered at once, and no more than a turn's; the rest waits."""
        if self._lingering:
            return
        if self._has_to_wait():
            self._keep(data)
            return
        fresh = not self._buffer
        data = self._buffer + data if self._buffer else data
        self._buffer = b""
        self._parsing = True
        left = MOST_IN_A_TURN
        try:
            while data and left and not self._has_to_wait() and not self._lingering:
                end = data.find(b"\r\n\r\n") + 4
                if end < 4 or data.startswith(b"\r\n"):
                    if data.startswith(b"\r\n"):  # RFC 9112, section 2.2: empty lines before a request
                        data = _EMPTY_LINES.sub(b"", data, count=1)  # all in one go: there may be very many
                        continue
                    self._wait_for_head(data, fresh=fresh)
                    return
                data = self._request(data, end)
                fresh = True
                left -= 1
        except BadMessage as error:
            self._malformed(error)
            return
        finally:
            self._parsing = False
        if not self._lingering:
            self._leave_rest(data, turn_over=not left)

    def _leave_rest(self, data: bytes, *, turn_over: bool) -> None:
        """Keep the rest for later, and read on while there is room; a body that is still coming sees to that itself."""
        exchange = self._exchange
        self._buffer = data
        if self._half_closed and not data and exchange is None:
            self._take_leave(complete=True, now=self._relay.clock())
            return
        if data and turn_over:
            self._relay.loop.call_soon(self._requests, b"")
        if len(data) > PIPELINE_ROOM:
            self.pause_reading()
        elif self._read_paused and (exchange is None or exchange.complete):
            deadline = self._deadline
            self.resume_reading()
            self._deadline = deadline

    def _has_to_wait(self) -> bool:
        """Whether the next request is not to be begun yet."""
        return self._exchange is not None or self.write_paused

    def _wait_for_head(self, data: bytes, *, fresh: bool) -> None:
        check_beginning(data, self._relay.limits)
        self._buffer = data
        if fresh:
            self._deadline = self._relay.clock() + self._relay.limits.header_timeout
        self.resume_reading()

    def _request(self, data: bytes, end: int) -> bytes:
        """Begin one request, whose head ends at `end`; returns what follows it. Raises BadMessage for a bad head."""
        relay = self._relay
        prepared, length = relay.reception.read(data if end == len(data) else data[:end])
        head = prepared.head
        request_id = relay.request_id(head.read.get(b"x-request-id"))
        exchange = self._exchange = Exchange(relay, self, prepared, length, request_id)
        if head.method == b"OPTIONS" and prepared.refusal is None:
            self._options(exchange)
            return data[end:]
        try:
            exchange.begin()
        except Refused as error:
            exchange.fail(error)
            return data[end:]
        if exchange.complete:
            return data[end:]
        self.resume_reading()
        self._paused = 0.0
        self._expect_more(exchange)
        if head.expects and exchange.has_body and end == len(data):
            self.write(_CONTINUE)
        return self._body(exchange, data, end) if end < len(data) else b""

    def _body(self, exchange: Exchange, data: bytes, at: int) -> bytes:
        """Take a piece of the present request's body; what follows it is returned while parsing, else kept."""
        try:
            end = exchange.receive(data, at)
        except Refused as error:
            exchange.fail(error)
            return b""
        if end == MORE and self._exchange is exchange:  # it may have been refused: its end has a time of its own
            self._expect_more(exchange)
        rest = b"" if end == MORE else data[end:]
        if self._parsing or not rest:
            return rest
        self._requests(rest)
        return b""

    def _expect_more(self, exchange: Exchange) -> None:
        """Set the time for the next piece of the body."""
        relay = self._relay
        if not self._read_paused:
            self._deadline = body_deadline(
                exchange.began,
                relay.clock(),
                exchange.request_bytes,
                header_timeout=relay.limits.header_timeout,
                paused=self._paused,
            )

    def _keep(self, data: bytes) -> None:
        """Bytes of a later request."""
        self._buffer += data
        if len(self._buffer) > PIPELINE_ROOM:
            self.pause_reading()

    def take_buffer(self) -> bytes:
        """What came of a later request: in a tunnel there is none, and the bytes are the tunnel's."""
        data, self._buffer = self._buffer, b""
        self.resume_reading()
        return data

    def _options(self, exchange: Exchange) -> None:
        """Answer OPTIONS here, a preflight above all: browsers send no key with it."""
        relay, head = self._relay, exchange.head
        page = exchange.prepared.page
        methods = b", ".join(sorted(page.methods)) if page is not None else b"GET, POST"
        keep = exchange.keep_alive = head.keep_alive and exchange.complete and not relay.draining
        lines = relay.cors.preflight(head.read, methods) + b"x-request-id: %b\r\n" % exchange.request_id
        self.write(b"HTTP/1.1 204 No Content\r\n%b%b\r\n" % (lines, b"" if keep else b"connection: close\r\n"))
        exchange.answered(204)

    def _malformed(self, error: BadMessage) -> None:
        """Answer what is not a request, and end."""
        exchange = self._exchange
        if exchange is None:
            relay = self._relay
            exchange = self._exchange = Exchange(relay, self, NOTHING, None, relay.request_id())
        exchange.fail(error)

    def _probe(self, exchange: Exchange) -> None:
        """Ask a client that half-closed whether it is there: its kernel answers for one that is gone.

        An interim response is something that every HTTP/1.1 client has to take (RFC 9110, section 15.2); one that
        speaks HTTP/1.0 cannot be asked and is taken for gone.
        """
        if self._exchange is not exchange or self._transport is None or (exchange.status and not exchange.waiting):
            return
        if exchange.status:
            exchange.comment()
            self._relay.loop.call_later(_HALF_CLOSE_ANSWER, self._abort_if_left)
        elif exchange.head.minor:
            self.write(_CONTINUE)
            self._relay.loop.call_later(_HALF_CLOSE_ANSWER, self._abort_if_left)
        else:
            self.abort()
