"""One request and its response: collected, routed, sent, relayed, accounted.

The life of an exchange:

    begin ─▶ receive … ─▶ dispatch ─▶ connected ─▶ respond ─▶ relay … ─▶ finish
      └─────────┴────────────┴─ fail ◀─── lost ────────┴─ fail: cut       abort (the client left) from anywhere

Rules:
- The body is held until it is whole or, when it is large, until it names its model; so an engine's connection is
  taken late and a slow upload holds none. Held bytes are bounded for the worker.
- The status goes out only once the engine's has come. Before that a failure is an answer of ours; after it, the
  response is cut so that the client can tell: the connection ends before the body does. A stream of events gets an
  error event first where one fits between two events, and never a `[DONE]`.
- A request is sent a second time only if it had gone out whole on a used connection that was reset before any byte
  of an answer (so nobody had read it), or if it is a GET; never a third time.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING

from vllm_circus.proxy.allow import Page, Where, find_page
from vllm_circus.proxy.counters import CLIENT_LEFT, TAIL_WINDOW, ModelCounter, new_tail
from vllm_circus.proxy.errors import Refused, not_ready, stream_error, unknown_path
from vllm_circus.proxy.head import RequestHead, engine_head
from vllm_circus.proxy.intake import Intake
from vllm_circus.proxy.reply import ERROR_HEADER, ResponseHead, client_head

if TYPE_CHECKING:
    from vllm_circus.proxy.backend import Backend
    from vllm_circus.proxy.downstream import Downstream
    from vllm_circus.proxy.framing import Framing
    from vllm_circus.proxy.relay import Relay
    from vllm_circus.proxy.upstream import Upstream

#: A body longer than this goes on as soon as its model is known; a shorter one when it is whole.
HOLD = 256 << 10
_AT_AN_EVENT_END = (b"\n\n", b"\n\n\r\n", b"\r\n\r\n")


class Exchange:
    """See the module. `down` is the client's connection; `status` is 0 until an answer begins."""

    __slots__ = (
        "_backend",
        "_clock",
        "_deadline",
        "_framing",
        "_give_up",
        "_is_stream",
        "_over",
        "_relay",
        "_tail",
        "_upstream",
        "_write",
        "asks_tunnel",
        "began",
        "chunks",
        "counter",
        "down",
        "first_at",
        "head",
        "intake",
        "is_tunnel",
        "keep_alive",
        "length",
        "page",
        "request_id",
        "response_bytes",
        "retried",
        "status",
        "unchunked",
    )

    def __init__(
        self, relay: Relay, down: Downstream, head: RequestHead, length: int | None, request_id: bytes
    ) -> None:
        self._relay = relay
        self._clock = relay.clock
        self._write = down.write
        self.down = down
        self.head = head
        self.length = length
        self.request_id = request_id
        self.page: Page | None = None
        self.intake: Intake | None = None
        self.counter: ModelCounter | None = None
        self._backend: Backend | None = None
        self._upstream: Upstream | None = None
        self._give_up: Callable[[], object] | None = None
        self._framing: Framing | None = None
        self._is_stream = self.asks_tunnel = self.is_tunnel = self.unchunked = self.retried = self._over = False
        self._tail = new_tail()
        self._deadline = inf
        self.keep_alive = False
        self.began = self._clock()
        self.first_at = 0.0
        self.status = self.chunks = self.response_bytes = 0

    # the request

    @property
    def complete(self) -> bool:
        """Whether the whole request has come."""
        return self.intake.complete if self.intake is not None else not self.has_body

    @property
    def has_body(self) -> bool:
        """Whether the request announces any byte of a body."""
        return self.head.chunked or bool(self.length)

    @property
    def backend_name(self) -> str:
        """The model it went to, or empty."""
        return self._backend.name if self._backend is not None else ""

    @property
    def is_anthropic(self) -> bool:
        """Whether errors have Anthropic's shape."""
        return self.page is not None and self.page.anthropic

    def begin(self) -> None:
        """The head has come. Raises Refused."""
        head, relay = self.head, self._relay
        page = self.page = find_page(head.path)
        if page is None or not page.open:
            relay.keys.check(head.read)
        if page is None:
            raise unknown_path()
        if head.method not in page.methods:
            allow = b"allow: " + b", ".join(sorted(page.methods))
            raise Refused(405, "method_not_allowed", "This path does not take that method.", headers=(allow,))
        self.asks_tunnel = page.where is Where.TUNNEL and head.upgrade == b"websocket"
        self.intake = Intake(head, self.length, page, relay.limits.max_body_bytes)
        if self.intake.complete:
            self._body_came(self.intake)

    def receive(self, data: bytes, at: int) -> int:
        """A piece of the body has come: index after its end, or MORE. Raises Refused where no end can be found."""
        intake = self.intake
        assert intake is not None  # noqa: S101 - begin() made it
        before = intake.held
        end = intake.feed(data, at)
        try:
            self._relay.hold(intake.held - before)
            self._body_came(intake)
        except Refused as error:
            self.fail(error)
        return end

    def _body_came(self, intake: Intake) -> None:
        """Do what can be done with the body so far. Raises Refused."""
        if intake.error is not None:
            raise intake.error
        if self._upstream is not None:
            self._upstream.write(self._release())
        elif self._backend is not None:  # being connected to
            self.down.pause_reading()
        elif intake.complete or (intake.held > HOLD and intake.model is not None):
            self._dispatch()

    def _dispatch(self) -> None:
        """Send it to its backend. Raises Refused."""
        backend = self._relay.find_backend(self)
        upstream = backend.take()
        if upstream is None and backend.is_down(self._clock()):
            raise not_ready(backend.name, "is not reachable", "", 1)
        self._backend = backend
        if self.counter is not None:
            self.counter.in_flight += 1
        if upstream is None:
            self._give_up = backend.connect(self)
        else:
            self._send(upstream)

    def connected(self, upstream: Upstream) -> None:
        """The backend was reached."""
        self._give_up = None
        if self._over:
            upstream.close()
            return
        if upstream.is_closing():  # accepted and closed at once: nothing was sent
            self.not_connected()
            return
        self._send(upstream)
        self.down.resume_reading()

    def not_connected(self) -> None:
        """The backend was not reached."""
        self._give_up = None
        if not self._over and self._backend is not None:
            self.fail(not_ready(self._backend.name, "is not reachable", "", 1))

    def _send(self, upstream: Upstream) -> None:
        backend, head, intake = self._backend, self.head, self.intake
        assert backend is not None and intake is not None  # noqa: S101, PT018 - _dispatch() saw to it
        start = engine_head(
            head,
            self.length,
            host=head.read.get(b"host", backend.host) if backend.is_control else backend.host,
            request_id=self.request_id,
            peer=self.down.peer,
            key=backend.key,
            tunnel=self.asks_tunnel,
        )
        again = upstream.used and intake.complete
        body = intake.peek() if again else self._release()
        self._upstream = upstream
        upstream.send(self, head.method, start + body if body else start)
        if self.down.write_paused:
            upstream.pause()
        limit = self._relay.limits.response_timeout
        if limit is not None:
            self._deadline = self._clock() + limit

    def _release(self) -> bytes:
        """What was held of the body."""
        if self.intake is None or not self.intake.held:
            return b""
        self._relay.hold(-self.intake.held)
        return self.intake.take()

    # the response

    def respond(self, head: ResponseHead, length: int | None, framing: Framing | None) -> bytes:
        """The backend's final head has come; returns what the client gets for it."""
        if self.intake is not None and self.intake.held:
            self._release()  # it is not sent again from here on
        client = self.head
        self.status = head.status
        self._framing = framing
        self._is_stream = head.is_stream
        self.unchunked = client.minor == 0 and head.is_chunked
        ends = self.unchunked or (framing is not None and framing.ends_with_connection)
        self.keep_alive = client.keep_alive and self.complete and not ends and not self._relay.draining
        if self.counter is not None and head.is_stream:
            self.counter.streams += 1
        extra = self._relay.cors.lines(client.read.get(b"origin"))
        if self._backend is not None and self._backend.is_control and ERROR_HEADER in head.read:
            extra += b"%b: %b\r\n" % (ERROR_HEADER, head.read[ERROR_HEADER])
        return client_head(
            head,
            length,
            request_id=self.request_id,
            minor=client.minor,
            keep_alive=self.keep_alive,
            extra=extra,
        )

    def interim(self, head: ResponseHead) -> None:
        """A 1xx response has come; `100 Continue` was ours to send."""
        if self.head.minor and head.status != 100:
            self._write(head.start + b"\r\n")

    def relay_head(self, start: bytes) -> None:
        """Hand on a head without a body, or before its body."""
        self._deadline = self._clock() + self._relay.limits.idle_timeout
        self._write(start)

    def relay(self, data: bytes, start: bytes = b"") -> None:
        """Hand on a piece of the body, with the head in front of the first one: one write for one read."""
        now = self._clock()
        if not self.first_at:
            self.first_at = now
            if self.head.path == b"/v1/responses":
                self._relay.remember(self, data)
        self._deadline = now + self._relay.limits.idle_timeout
        self._write(start + data if start else data)
        self.response_bytes += len(data)
        if self._is_stream:
            self.chunks += data.count(b"\n\n")
        self._tail.append(data if len(data) <= TAIL_WINDOW else data[-TAIL_WINDOW:])

    def tunnel(self, head: bytes, rest: bytes) -> None:
        """The connection is a tunnel from here on."""
        self.status = 101
        self.is_tunnel = True
        self._deadline = self._clock() + self._relay.limits.idle_timeout
        self._write(head + rest)
        early = self.down.take_buffer()
        if early:
            self.send_on(early)

    def send_on(self, data: bytes) -> None:
        """What the client sends through the tunnel."""
        self._deadline = self._clock() + self._relay.limits.idle_timeout
        if self._upstream is not None:
            self._upstream.write(data)

    # the end

    def answered(self, status: int) -> None:
        """The proxy answered it, and it concerns no model."""
        self._over = True
        self.status = status
        self._relay.finished(self, cut=False)
        self.down.exchange_over(keep_alive=self.keep_alive)

    def finish(self) -> None:
        """The response is whole."""
        self._upstream = None
        self._close_account(self.status)
        self.down.exchange_over(keep_alive=self.keep_alive and self.complete)

    def lost(self, upstream: Upstream, *, reset: bool) -> None:
        """The backend closed the connection before the end."""
        self._upstream = None
        backend = self._backend
        if self._over or backend is None:
            return
        unread = reset or self.head.method == b"GET"
        if upstream.silent and upstream.used and unread and self._can_be_sent_again():
            self.retried = True
            self._give_up = backend.connect(self)
            return
        if self.is_tunnel:
            self._close_account(101)
            self.down.exchange_over(keep_alive=False)
            return
        self.fail(Refused(502, "engine_lost", f"The engine of `{backend.name}` closed the connection.", retry_after=1))

    def broken(self, why: str) -> None:
        """The backend's response cannot be handed on."""
        self._upstream = None
        if not self._over:
            self.fail(Refused(502, "bad_response", f"The answer cannot be handed on: {why}."))

    def fail(self, error: Refused) -> None:
        """Answer it ourselves, or cut the answer that has begun."""
        self._leave_backend()
        if not self.status:
            self._close_account(error.http_status)
            self.down.refuse(error, self)
            return
        if self._is_stream and self._framing is not None and self._framing.between and self._at_event_end():
            event = stream_error(error, anthropic=self.is_anthropic, request_id=self.request_id)
            plain = self.unchunked or self._framing.ends_with_connection
            self._write(event if plain else b"%x\r\n%b\r\n" % (len(event), event))
        by_end = self.unchunked or (self._framing is not None and self._framing.ends_with_connection)
        self._close_account(self.status, cut=True)
        self.down.cut(reset=by_end)

    def abort(self) -> None:
        """The client left."""
        if not self._over:
            self._leave_backend()
            self._close_account(101 if self.is_tunnel else CLIENT_LEFT)

    def check(self, now: float) -> None:
        """Called now and then: whether the backend took too long."""
        if now >= self._deadline:
            self.fail(Refused(504, "engine_timeout", "The engine took too long.", retry_after=1))

    def pause(self) -> None:
        """The client is slow."""
        if self._upstream is not None:
            self._upstream.pause()

    def resume(self) -> None:
        """The client took what was written."""
        if self._upstream is not None:
            self._upstream.resume()

    def _can_be_sent_again(self) -> bool:
        """Whether every byte of it is still here."""
        intake = self.intake
        return not self.retried and intake is not None and intake.complete and intake.held == intake.total

    def _at_event_end(self) -> bool:
        return not self._tail or self._tail[-1].endswith(_AT_AN_EVENT_END)

    def _leave_backend(self) -> None:
        if self._give_up is not None:
            self._give_up()
            self._give_up = None
        if self._upstream is not None:
            self._upstream.close()
            self._upstream = None

    def _close_account(self, status: int, *, cut: bool = False) -> None:
        if self._over:
            return
        self._over = True
        self._release()
        self.status = status
        counter = self.counter
        if counter is not None:
            if self._backend is not None:
                counter.in_flight -= 1
            counter.add(self, cut=cut, tail=self._tail, now=self._clock())
        elif self.page is None or self.page.where is not Where.CONTROL:
            self._relay.counters.unrouted[status] += 1
        self._relay.finished(self, cut=cut)
