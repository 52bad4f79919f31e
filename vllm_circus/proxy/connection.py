"""A client's connection, without what is said on it: reading and writing, pauses, time limits, the ways to end.

Rules: an answer is never taken away by its own end: what the client still sends is read for a moment before the
connection is closed, since a reset would overtake the answer. Where a plain end would look like the end of a whole
answer, the connection is reset instead; TLS says goodbye before it closes, so there the reset waits until what was
written has gone out. Nobody's large upload holds the loop for longer than one read.
"""

from __future__ import annotations

import asyncio
from math import inf
from typing import TYPE_CHECKING, cast

from vllm_circus.proxy.head import forwarded_lines
from vllm_circus.proxy.sockets import has_left, reset_on_close

if TYPE_CHECKING:
    from vllm_circus.proxy.relay import Relay

#: Bytes of one read after which the others have their turn: uvloop reads 256,000 at a time, and where it got all of
#: them libuv goes on reading, 32 times. Shorter reads end by themselves, and a pause costs two system calls.
LARGE_READ = 250_000
#: Seconds that a connection which is to close is still read from, or may take to be written to.
LINGER_SECONDS = 2.0
#: Seconds that the last bytes before a reset have to go out behind TLS.
_LAST_BYTES = 0.1


class Connection(asyncio.Protocol):
    """See the module.

    Attributes:
        peer: the client's address.
        secure: it came with TLS.
        forwarded: the lines that tell engines both.
        write: sends bytes; `write_paused` says that the client does not take what is written.
    """

    __slots__ = (
        "_deadline",
        "_lingering",
        "_paused",
        "_paused_at",
        "_read_paused",
        "_relay",
        "_transport",
        "forwarded",
        "peer",
        "secure",
        "write",
        "write_paused",
    )

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._transport: asyncio.Transport | None = None
        self._lingering = self._read_paused = self.write_paused = self.secure = False
        self._deadline = inf
        self._paused = self._paused_at = 0.0  # seconds in which the present request was not read, and since when
        self.peer = self.forwarded = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = cast("asyncio.Transport", transport)
        self.write = self._transport.write
        name = transport.get_extra_info("peername")
        self.peer = name[0].encode() if isinstance(name, tuple) else b"unix"
        self.secure = transport.get_extra_info("sslcontext") is not None
        self.forwarded = forwarded_lines(self.peer, secure=self.secure)
        self._deadline = self._relay.clock() + self._relay.limits.header_timeout

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

    def abort(self) -> None:
        """End it now."""
        if self._transport is not None:
            self._transport.abort()

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
            self._deadline = self._relay.clock() + LINGER_SECONDS
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

    def _give_up(self) -> None:
        """End it now; who was not sent everything is to be able to tell."""
        if self._transport is not None and self._transport.get_write_buffer_size():
            reset_on_close(self._transport)
        self.abort()

    def _abort_if_left(self) -> None:
        if self._transport is not None and has_left(self._transport):
            self.abort()
