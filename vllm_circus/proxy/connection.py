"""A client's connection, without what is said on it: reading and writing, pauses, time limits, the ways to end.

Rules: an answer is never taken away by its own end: what the client still sends is read for a moment before the
connection is closed, since a reset would overtake the answer. Where a plain end would look like the end of a whole
answer, the connection is reset instead, whoever ends it, a signal that nobody can catch included; TLS says goodbye
before it closes, so there the reset waits until what was written has gone out. Nobody's large upload holds the loop
for longer than one read, and nobody who takes nothing of a last answer keeps its connection for long.
"""

from __future__ import annotations

import asyncio
from functools import lru_cache
from math import inf
from typing import TYPE_CHECKING, Final, cast

from vllm_circus.proxy.head import forwarded_lines
from vllm_circus.proxy.sockets import has_left, is_at_rest, reset_on_close, unsent

if TYPE_CHECKING:
    from vllm_circus.proxy.exchange import Exchange
    from vllm_circus.proxy.relay import Relay

#: Bytes of one read after which the others have their turn, behind TLS: uvloop reads 256,000 at a time, and where it
#: got all of them libuv goes on reading, 32 times. Shorter reads end by themselves; a pause costs two system calls.
LARGE_READ: Final = 250_000
#: Seconds that a connection which is to close is still read from, or may take to be written to; and as many more,
#: up to so many, as the client goes on to send this many bytes from one look to the next.
LINGER_SECONDS: Final = 2.0
LINGER_MOST: Final = 30.0
LINGER_PIECE: Final = 64 << 10
#: Seconds between two looks at a last answer that is not taken: who has taken nothing in between is given up.
READER_SECONDS: Final = 5.0
#: Seconds that an idle connection is left while draining, for a request that is already under way.
DRAIN_GRACE: Final = 1.0
#: Seconds that a connection which is needed for others is left for its first request.
FIRST_GRACE: Final = 1.0
#: Seconds that the last bytes before a reset have to go out behind TLS.
_LAST_BYTES: Final = 0.1


@lru_cache(maxsize=1024)
def _origin(address: str, secure: bool) -> tuple[bytes, bytes]:
    """The address as bytes, and the lines that tell engines of it; shared, since a client has many connections."""
    peer = address.encode()
    return peer, forwarded_lines(peer, secure=secure)


class Connection:
    """See the module.

    Attributes:
        peer: the client's address.
        secure: it came with TLS.
        forwarded: the lines that tell engines both.
        write: sends bytes; `write_paused` says that the client does not take what is written.
    """

    __slots__ = (
        "_buffer",
        "_deadline",
        "_discarded",
        "_exchange",
        "_first_deadline",
        "_last_deadline",
        "_lingering",
        "_paused",
        "_paused_at",
        "_read_paused",
        "_relay",
        "_transport",
        "_untaken",
        "forwarded",
        "peer",
        "secure",
        "write",
        "write_paused",
    )

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._transport: asyncio.Transport | None = None
        self._exchange: Exchange | None = None
        self._buffer = b""  # of later requests
        self._lingering = self._read_paused = self.write_paused = self.secure = False
        self._deadline = self._first_deadline = inf
        self._last_deadline = 0.0
        self._untaken = self._discarded = 0  # bytes of the last answer, when last looked at; bytes since then
        self._paused = self._paused_at = 0.0  # seconds in which the present request was not read, and since when
        self.peer = self.forwarded = b""

    @property
    def is_idle(self) -> bool:
        """Whether it waits for a request of which nothing has come."""
        return self._exchange is None and not self._buffer and not self._lingering

    def is_new(self, now: float) -> bool:
        """Whether it has only just come, and asked for nothing yet."""
        if self._deadline != self._first_deadline or self._exchange is not None or self._lingering:
            return False
        return now < self._first_deadline - self._relay.limits.header_timeout + FIRST_GRACE

    def idle_since(self, now: float) -> float | None:
        """Since when it has waited for a request, and could be closed; None where it is not idle, or has just come."""
        transport = self._transport
        if self._exchange is not None or self._buffer or self._lingering or self.write_paused or transport is None:
            return None
        limits = self._relay.limits
        if self._deadline == self._first_deadline:  # it has never asked
            return None if self.is_new(now) else self._deadline - limits.header_timeout
        return self._deadline - limits.keep_alive

    def give_way(self) -> bool:
        """Close it while it is idle; False where part of a request is there, unread, or of an answer, unsent."""
        transport = self._transport
        if transport is None or transport.is_closing() or not is_at_rest(transport):
            return False
        self._lingering = True
        transport.abort()
        return True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = cast("asyncio.Transport", transport)
        self.write = self._transport.write
        name = transport.get_extra_info("peername")
        self.secure = transport.get_extra_info("sslcontext") is not None
        self.peer, self.forwarded = _origin(name[0] if isinstance(name, tuple) else "unix", self.secure)
        self._deadline = self._first_deadline = self._relay.clock() + self._relay.limits.header_timeout

    def pause_reading(self) -> None:
        """Take no more from the client."""
        if not self._read_paused and self._transport is not None and not self._transport.is_closing():
            self._read_paused = True
            self._paused_at = self._relay.clock()
            self._deadline = self._paused_at + self._relay.limits.idle_timeout
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read on."""
        if self._read_paused and self._transport is not None:
            self._read_paused = False
            now = self._relay.clock()
            self._paused += now - self._paused_at
            self._deadline = now + self._relay.limits.header_timeout
            if not self._transport.is_closing():
                self._transport.resume_reading()

    def drain(self) -> None:
        """The worker is to end: an idle connection gets a moment for a request that is under way."""
        if self.is_idle:
            self._deadline = min(self._deadline, self._relay.clock() + DRAIN_GRACE)

    def abort(self) -> None:
        """End it now; who was not sent everything is to be able to tell."""
        if self._transport is not None:
            if self._transport.get_write_buffer_size():
                reset_on_close(self._transport)
            self._transport.abort()

    def tear_on_close(self, *, on: bool) -> None:
        """From here on a plain end would look like that of a whole answer, or no longer would: let it be a reset."""
        reset_on_close(self._transport, on=on)

    def _take_turns(self) -> None:
        """Let the other connections have their turn before more is read."""
        transport = self._transport
        if transport is None or self._read_paused or transport.is_closing():
            return
        transport.pause_reading()
        self._relay.loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        transport = self._transport
        if transport is not None and not self._read_paused and not transport.is_closing():
            transport.resume_reading()

    def _close(self, *, linger: bool) -> None:
        """End it in good order; with `linger` the client may still be sending."""
        transport = self._transport
        self._lingering = True
        self._deadline = self._relay.clock() + LINGER_SECONDS
        if transport is None or transport.is_closing():
            return
        if linger and transport.can_write_eof():
            self.resume_reading()
            now = self._relay.clock()
            self._deadline = now + LINGER_SECONDS
            self._last_deadline = now + LINGER_MOST
            transport.write_eof()
        else:
            transport.close()

    def _reset(self) -> None:
        """End it so that the client can tell that something is missing."""
        reset_on_close(self._transport)
        if self.secure:
            self._lingering = True
            self._deadline = self._relay.clock() + _LAST_BYTES
        else:
            self._close(linger=False)

    def _await_reader(self, now: float) -> None:
        """Leave who reads a last answer the time for it: for all that is left as much as for one piece before."""
        self._last_deadline = now + self._relay.limits.idle_timeout
        self._deadline = min(now + READER_SECONDS, self._last_deadline)

    def _linger_on(self, now: float) -> None:
        """The time of a connection that is to close is over: end it, unless its client still reads, or still sends."""
        untaken = unsent(self._transport)
        goes_on = untaken not in {0, self._untaken} or self._discarded >= LINGER_PIECE
        if now < self._last_deadline and goes_on:
            self._untaken, self._discarded = untaken, 0
            self._deadline = min(now + READER_SECONDS, self._last_deadline)
        else:
            self.abort()

    def _abort_if_left(self) -> None:
        if self._transport is not None and has_left(self._transport):
            self.abort()
