"""One request and its response: the second half, in which the answer is relayed and accounted for.

    sent ─▶ respond ─▶ relay … ─▶ finish
      └─ fail ◀─ lost ──┴─ fail: cut        abort (the client left) from anywhere

Rules:
- The status goes out only once the engine's has come. Before that a failure is an answer of ours; after it, the
  response is cut so that the client can tell: the connection ends before the body does. A stream of events gets an
  error event first where one fits between two events, and never a `[DONE]`.
- Most answers are small and come whole: `answer` does in a straight line what the other methods do step by step, since
  a call costs about as much as what it does. What is done for each piece of a stream is a clock, a write and a count.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final

from vllm_circus.proxy.allow import CONTROL
from vllm_circus.proxy.counters import CLIENT_LEFT, TAIL_WINDOW, kept_before
from vllm_circus.proxy.early import EarlyStream, chunked, comment, first_comment, head_of
from vllm_circus.proxy.errors import Refused, stream_error
from vllm_circus.proxy.framing import count_events
from vllm_circus.proxy.reply import ERROR_HEADER, ResponseHead, client_head
from vllm_circus.proxy.request import Request
from vllm_circus.proxy.usage import UsageFilter, as_chunk

if TYPE_CHECKING:
    from collections.abc import Callable

    from vllm_circus.proxy.downstream import Downstream
    from vllm_circus.proxy.framing import Framing
    from vllm_circus.proxy.reception import Prepared
    from vllm_circus.proxy.relay import Relay
    from vllm_circus.proxy.upstream import Upstream

LAST_CHUNK: Final = b"0\r\n\r\n"
_AT_AN_EVENT_END: Final = (b"\n\n", b"\n\n\r\n", b"\r\n\r\n")
#: Refusals that say nothing about an engine, though their status is that of a server at fault.
_OURS: Final = frozenset({"overloaded", "shutting_down"})


class Exchange(Request):
    """See the module.

    Attributes:
        status: 0 until an answer begins.
        began, first_at, last_at: when the request came, the answer's first and its latest byte, by the relay's clock.
        chunks: events of a stream so far.
        unchunked: the body is passed without its chunk framing.
    """

    __slots__ = (
        "_before",
        "_ends_with_connection",
        "_filter",
        "_framing",
        "_is_stream",
        "_piece",
        "_unsent",
        "_write",
        "began",
        "chunks",
        "first_at",
        "is_tunnel",
        "keep_alive",
        "last_at",
        "response_bytes",
        "status",
        "unchunked",
    )

    def __init__(
        self, relay: Relay, down: Downstream, prepared: Prepared, length: int | None, request_id: bytes
    ) -> None:
        Request.__init__(self, relay, down, prepared, length, request_id)
        self._write: Callable[[bytes], object] = down.write
        self._framing: Framing | None = None
        self._filter: UsageFilter | None = None
        self._piece = self._before = b""  # the latest piece of the body, and what may belong to it or its usage
        self._is_stream = self.is_tunnel = self.unchunked = self.keep_alive = self._ends_with_connection = False
        self.began = relay.clock()
        self.first_at = self.last_at = 0.0
        self.status = self.chunks = self.response_bytes = self._unsent = 0

    # the response

    def answer(self, upstream: Upstream, head: ResponseHead, data: bytes, end: int, *, reusable: bool) -> None:
        """The backend's whole answer is here: its head up to `end`, its body after it, and nothing else."""
        now = self._clock()
        relay, client, counter = self._relay, self.head, self.counter
        keep = client.keep_alive and self.complete and not relay.draining
        self.status = status = head.status
        self.first_at = now
        self.response_bytes = size = len(data) - end
        self._upstream = None
        self._write(
            b"%bcontent-length: %d\r\n%b%b%b\r\n%b"
            % (
                head.start,
                size,
                b"" if head.names_request else b"x-request-id: %b\r\n" % self.request_id,
                b"" if keep and client.minor else b"connection: keep-alive\r\n" if keep else b"connection: close\r\n",
                self.prepared.cors if counter is not None and not self.moved else self._extra(head),
                data[end:],
            )
        )
        backend = self._backend
        if reusable and self.complete and backend is not None:
            backend.release(upstream, now)
        else:
            upstream.close()
        if client.path == b"/v1/responses":
            relay.remember(self, data)
        if counter is not None:
            counter.add_usage(data if size <= TAIL_WINDOW else data[-TAIL_WINDOW:])
        self._close_account(status, now)
        self.down.exchange_over(keep_alive=keep, now=now)

    def respond(self, head: ResponseHead, length: int | None, framing: Framing | None) -> bytes:
        """The backend's final head has come; returns what the client gets for it."""
        self._release()
        client = self.head
        self.status = head.status
        if self.is_trial and head.status < 500:
            self._is_well()
        self._framing = framing
        self._is_stream = head.is_stream
        if head.is_stream:
            if self.counter is not None:
                self.counter.streams += 1
            if self.hides_usage and head.is_chunked and framing is not None:
                self._filter = UsageFilter()
        self.unchunked = client.minor == 0 and head.is_chunked
        ends = self.unchunked or (framing is not None and framing.ends_with_connection)
        if ends:
            self._ends_with_connection = True
            self.down.tear_on_close(on=True)
        self.keep_alive = client.keep_alive and self.complete and not ends and not self._relay.draining
        return client_head(
            head,
            length,
            request_id=self.request_id,
            minor=client.minor,
            keep_alive=self.keep_alive,
            extra=self._extra(head),
        )

    def _is_well(self) -> None:
        """The replica that it tries answers, however long that may take."""
        if self._backend is not None:
            self.is_trial = False
            self._backend.ejector.succeeded()

    def _extra(self, head: ResponseHead) -> bytes:
        """Header lines of ours."""
        extra = self.prepared.cors
        if self.moved:
            extra += b"x-vllm-circus-fallback: %b\r\n" % (self._group.name.encode() if self._group else b"")
        if self.counter is None and ERROR_HEADER in head.read:
            extra += b"%b: %b\r\n" % (ERROR_HEADER, head.read[ERROR_HEADER])
        return extra

    def interim(self, head: ResponseHead) -> None:
        """A 1xx response has come; `100 Continue` was ours to send."""
        if self.head.minor and head.status != 100:
            self._write(head.start + b"\r\n")

    def relay_head(self, start: bytes) -> None:
        """Hand on a head without a body, or before its body."""
        self.last_at = self._clock()
        self._write(start)

    def relay(self, data: bytes, start: bytes = b"") -> None:
        """Hand on a piece of the body, with the head in front of the first one: one write for one read."""
        now = self._clock()
        out = data if self._filter is None else self._filtered(self._filter.feed(data))
        self._write(start + out if start else out)
        self.response_bytes += len(data)
        if self.first_at:
            if self._is_stream and self.counter is not None:
                self.counter.chunk_gap.add(now - self.last_at)
        else:
            self.first_at = now
            if self.head.path == b"/v1/responses":
                self._relay.remember(self, data)
        self.last_at = now
        line = self._framing.line if self._framing is not None else 0
        if self._is_stream:
            self.chunks += count_events(data, line)
        self._before = kept_before(self._before, self._piece, data, line)
        self._piece = data if len(data) <= TAIL_WINDOW else data[-TAIL_WINDOW:]

    def _filtered(self, data: bytes) -> bytes:
        """A piece of a stream of which something was taken out: its chunks are made anew."""
        return data if self.unchunked else as_chunk(data)

    def tunnel(self, head: ResponseHead, rest: bytes) -> None:
        """The connection is a tunnel from here on; `rest` is what has come of it."""
        self.status = 101
        self.is_tunnel = True
        if self.is_trial:
            self._is_well()
        self.last_at = self._clock()
        self._write(
            b"%bconnection: Upgrade\r\nupgrade: %b\r\n%b%b\r\n%b"
            % (
                head.start,
                self.head.upgrade,
                b"" if head.names_request else b"x-request-id: %b\r\n" % self.request_id,
                self._extra(head),
                rest,
            )
        )
        early = self.down.take_buffer()
        if early:
            self.send_on(early)

    def send_on(self, data: bytes) -> None:
        """What the client sends through the tunnel."""
        self.last_at = self._clock()
        if self._upstream is not None:
            self._upstream.write(data)

    # the end

    def answered(self, status: int) -> None:
        """The proxy answered it, and it concerns no model."""
        self._over = True
        self.status = status
        self._relay.finished(self, cut=False)
        self.down.exchange_over(keep_alive=self.keep_alive, now=self._clock())

    def finish(self) -> None:
        """The response is whole."""
        now = self._clock()
        self._upstream = None
        if self._filter is not None:
            self._write(self._filtered(self._filter.end()) + (b"" if self.unchunked else LAST_CHUNK))
        if self._ends_with_connection:
            self.down.tear_on_close(on=False)
        if self.counter is not None and self._piece:
            self.counter.add_usage(self._before + self._piece)
        self._close_account(self.status, now)
        self.down.exchange_over(keep_alive=self.keep_alive and self.complete, now=now)

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
            self._close_account(101, self._clock())
            self.down.exchange_over(keep_alive=False, now=self._clock())
            return
        self.fail(Refused(502, "engine_lost", f"The engine of `{backend.name}` closed the connection.", retry_after=1))

    def broken(self, why: str | Refused) -> None:
        """The backend's response cannot be handed on."""
        self._upstream = None
        if not self._over:
            said = f"The answer cannot be handed on: {why}."
            self.fail(why if isinstance(why, Refused) else Refused(502, "bad_response", said))

    def fail(self, error: Refused) -> None:
        """Answer it ourselves, or cut the answer that has begun."""
        self._leave_backend()
        blameless = error.http_status < 500 or error.code in _OURS
        if not self.status:
            data, keep_alive = self.down.refusal(error, self)
            self.response_bytes = len(data) - data.index(b"\r\n\r\n") - 4
            self._close_account(error.http_status, self._clock(), blameless=blameless)
            self.down.write(data)
            self.down.exchange_over(keep_alive=keep_alive, now=self._clock())
            return
        if self._takes_event():
            event = stream_error(error, anthropic=self.is_anthropic, request_id=self.request_id)
            if self._filter is not None:
                event = self._filter.end() + event
            self._write(event if self._ends_with_connection or self.early is not None else as_chunk(event))
        self._close_account(self.status, self._clock(), cut=True, blameless=blameless)
        self.down.cut(reset=self._ends_with_connection)

    def abort(self) -> None:
        """The client left."""
        if not self._over:
            self._leave_backend()
            self._close_account(101 if self.is_tunnel else CLIENT_LEFT, self._clock())

    def check(self, now: float) -> None:
        """Called now and then: whether the backend took too long, or a place in the queue did not come."""
        if self.waiting is not None and self._group is not None:
            self._group.look_after(self, self.waiting.since)
            self._keep_company(now, self._group.comments)
        elif self.last_at:
            if now >= self.last_at + self._relay.limits.idle_timeout:
                self._stalled()
        elif self._deadline != inf and not self._goes_out() and now >= self._deadline:
            self._stalled()

    def _goes_out(self) -> bool:
        """Whether the engine has taken some more of the request since the last look: its time begins at the end."""
        unsent = self._upstream.unsent if self._upstream is not None else 0
        if unsent == self._unsent:
            return False
        self._unsent = unsent
        self._await_answer()
        return True

    def _stalled(self) -> None:
        if self.status and self.down.write_paused:  # the engine is not to blame, nor to be left alone for it
            self.fail(Refused(408, "client_timeout", "The client does not take the answer."))
        else:
            self.fail(Refused(504, "engine_timeout", "The engine took too long.", retry_after=1))

    def _takes_event(self) -> bool:
        """Whether the answer that has begun is a stream, and an event of ours fits in here."""
        if not self._is_stream or (self._piece and not self._piece.endswith(_AT_AN_EVENT_END)):
            return False
        return self.early is not None if self._framing is None else self._framing.between

    # a stream that is answered while it waits

    def _keep_company(self, now: float, interval: float | None) -> None:
        """Tell whoever waits for a stream that somebody is there, each time that so many seconds have passed."""
        wait = self.waiting
        if wait is None or interval is None:
            return
        if wait.next_comment is None:
            wait.next_comment = first_comment(self, wait.since, interval)
        if now < wait.next_comment or self.down.write_paused:
            return
        wait.next_comment = now + interval
        if self.early is None:
            self.early = EarlyStream(self)
            self.status, self._is_stream = 200, True
            self.keep_alive = self.head.keep_alive and not self._relay.draining
            self._write(head_of(self, keep_alive=self.keep_alive))
            self._write = chunked(self.down.write)
        self.comment()

    def comment(self) -> None:
        """Tell the client, who has had its head, that it waits."""
        self._write(comment(self.model or ""))

    def go_on_ahead(self) -> None:
        """The engine's stream comes, for a client that has had its head: the body goes on in chunks of ours."""
        self._framing = None
        self.unchunked = True
        self.keep_alive = self.head.keep_alive and not self._relay.draining
        if self._ends_with_connection:
            self._ends_with_connection = False
            self.down.tear_on_close(on=False)

    def finish_ahead(self) -> None:
        """The engine's stream is whole."""
        if self._filter is not None:
            self._write(self._filter.end())
            self._filter = None
        self.down.write(LAST_CHUNK)
        self.finish()

    def _leave_backend(self) -> None:
        if self.waiting is not None and self._group is not None:
            self.waiting = None
            self._group.leave(self)
        if self._give_up is not None:
            self._give_up()
            self._give_up = None
        if self._upstream is not None:
            self._upstream.close()
            self._upstream = None

    def _close_account(self, status: int, now: float, *, cut: bool = False, blameless: bool = False) -> None:
        if self._over:
            return
        self._over = True
        if self._counted or self.intake is not None:
            self._release()
        answered = (self.status or status >= 500) and not blameless  # else the engine has shown nothing
        self.status = status
        counter = self.counter
        if counter is not None:
            if self._backend is not None:
                counter.in_flight -= 1
                if self._group is not None and self._group.is_watched:
                    shown = status if answered else CLIENT_LEFT
                    self._group.done(self._backend, status=shown, cut=cut, trial=self.is_trial)
            counter.cut += cut
            counter.add(self, now)
        elif self.prepared.page is None or self.prepared.page.where is not CONTROL:
            self._relay.counters.unrouted[status] += 1
        if self._relay.on_finished is not None:
            self._relay.finished(self, cut=cut)
