"""A connection without TLS: what an asyncio transport does, at little more than the price of the system calls.

Rules:

- The poller watches by edge (epoll(7)). So reading goes on until there is no more, or asks to be told again: what is
  left unread without either would stay unread.
- What is read goes on in the very object that it was read into: no copy. Tokens are read into small ones, for which
  CPython has places ready; that saves a tenth of the instructions of a token, as do os.read and os.write: the methods
  of sockets first make a tuple of what they are given. read(2) and write(2) cost 40 ns more than recv(2) and send(2).
- A write goes out at once. What the kernel does not take waits, bounded by whoever heeds `pause_writing`.
- Nobody holds the loop for longer than one read: who filled its room is told again after the others.
- The end is told in a turn of its own, and the socket stays open until then: what came before an error can be read.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mypy_extensions import i64  # the compiler's name for an int that fits into a register

    from vllm_circus.proxy.intake import Piece
    from vllm_circus.proxy.poller import Poller
    from vllm_circus.proxy.sockets import Told

#: Bytes of one read: so many at first, and as many as this when reads fill their room.
_ROOM: Final = 16 << 10
_MOST_ROOM: Final = 128 << 10
#: And so many after a read of no more than so many, a token's: the largest object that CPython has ready-made places
#: for, 512 bytes with its head of 33 (Objects/obmalloc.c).
_SMALL_ROOM: Final = 479
_SMALL_READ: Final = 400
#: Bytes that wait to be written above which the protocol is paused, and at which it goes on: those of asyncio.
_HIGH: Final = 64 << 10
_LOW: Final = 16 << 10
#: Pieces of one write: the kernel takes 1024 (writev(2), IOV_MAX).
_MOST_PIECES: Final = 512
#: The names are those of <sys/epoll.h>; as numbers, since compiled code need not look these up.
_EPOLLIN: Final = 0x1
_EPOLLPRI: Final = 0x2
_EPOLLOUT: Final = 0x4
_EPOLLERR: Final = 0x8
_EPOLLHUP: Final = 0x10
_EPOLLRDHUP: Final = 0x2000
_EPOLLET: Final = 0x80000000
IN: Final = _EPOLLIN | _EPOLLPRI | _EPOLLRDHUP | _EPOLLET
_IN_OUT: Final = IN | _EPOLLOUT
#: With these a short read is not all: an end follows it, or what is behind urgent data, at which reads stop (tcp(7)).
_MORE: Final = _EPOLLPRI | _EPOLLRDHUP | _EPOLLHUP | _EPOLLERR
_TO_READ: Final = _EPOLLIN | _MORE
_TO_WRITE: Final = _EPOLLOUT | _EPOLLHUP | _EPOLLERR

#: Found at once by compiled code, which looks for other names in a dictionary.
_recv: Final = os.read
_send: Final = os.write


def _nothing(_: bytes) -> None:
    """For who is told nothing any more."""


class SocketTransport:
    """See the module, and asyncio.Transport for the methods."""

    __slots__ = (
        "_broken",
        "_closing",
        "_crowded",
        "_descriptor",
        "_ends",
        "_out",
        "_paused",
        "_poller",
        "_reading",
        "_received",
        "_room",
        "_sock",
        "_told",
        "_unread",
        "_unsent",
    )

    def __init__(self, poller: Poller, sock: socket.socket, told: Told) -> None:
        self._poller = poller
        self._sock = sock
        self._descriptor = sock.fileno()
        self._told: Told | None = told
        self._received: Callable[[bytes], None] = told.data_received
        self._room = _ROOM
        self._out: list[Piece] = []
        self._unsent = 0  # bytes of these
        self._reading = True
        self._unread = False  # something has come, or an end, of which nobody will tell again
        self._broken = False  # it failed, and will be told so
        self._paused = self._closing = self._ends = self._crowded = False

    def __repr__(self) -> str:
        doing = "closing" if self._closing else "paused" if self._paused else "open"
        return f"<SocketTransport {doing}, {self._unsent} bytes unsent>"

    # reading

    def ready(self, events: int) -> None:
        """What the kernel says of it."""
        bits: i64 = events
        if self._unsent and bits & _TO_WRITE:
            self._write_on()
        if bits & _TO_READ:
            if self._reading:
                self._read(bits & _MORE != 0)
            else:
                self._unread = True

    def _read(self, more: bool) -> None:
        """Read what there is; with `more` until the kernel says that it was all."""
        while True:
            room = self._room
            try:
                data = _recv(self._descriptor, room)
            except BlockingIOError:
                return
            except OSError as error:
                self.fail(error)
                return
            if len(data) == room == _SMALL_ROOM:
                data = self._with_rest(data)
                room = _ROOM
            size = len(data)
            if not size:
                self._end()
                return
            self._room = _room_after(size, room)
            self._received(data)
            if size < room and not more:
                return
            if not self._reading:
                self._unread = True
                return
            if size >= room:
                self._watch()  # the others have their turn
                return

    def _with_rest(self, data: bytes) -> bytes:
        """These bytes, and what came after them."""
        try:
            return data + _recv(self._descriptor, _ROOM)
        except BlockingIOError:
            return data
        except OSError as error:  # what came before it is told first; asked again, the kernel would call it an end
            self._reading = False
            self._broken = True
            self._poller.loop.call_soon(self.fail, error)
            return data

    def _end(self) -> None:
        self._reading = False
        self._unread = True
        if self._told is not None and not self._told.eof_received():
            self.close()

    def pause_reading(self) -> None:
        """See asyncio.Transport."""
        self._paused = True
        self._reading = False

    def resume_reading(self) -> None:
        """See asyncio.Transport."""
        if self._paused and not self._closing:
            self._paused = False
            self._reading = not self._broken
            if self._unread and self._reading:
                self._unread = False
                self._watch()

    def _watch(self) -> None:
        self._poller.watch(self._descriptor, _IN_OUT if self._unsent else IN)

    # writing

    def write(self, data: bytes) -> None:
        """Send these bytes; on a connection that is closing they are for nobody."""
        if self._unsent or self._closing:
            self._keep((data,), 0)
            return
        try:
            sent = _send(self._descriptor, data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self.fail(error)
            return
        if sent != len(data):
            self._keep((data,), sent)

    def writelines(self, pieces: Sequence[Piece]) -> None:
        """Send these, as one write."""
        if self._unsent or self._closing:
            self._keep(pieces, 0)
            return
        try:
            sent = self._sock.sendmsg(pieces[:_MOST_PIECES])
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self.fail(error)
            return
        self._keep(pieces, sent)

    def _keep(self, pieces: Sequence[Piece], sent: int) -> None:
        """Send later what the kernel did not take: all but the first `sent` bytes."""
        if self._closing:
            return
        first = not self._unsent
        for piece in pieces:
            size = len(piece)
            if sent >= size:
                sent -= size
            else:
                self._out.append(memoryview(piece)[sent:] if sent else piece)
                self._unsent += size - sent
                sent = 0
        if first and self._unsent:
            self._watch()
        if self._unsent > _HIGH and not self._crowded and self._told is not None:
            self._crowded = True
            self._told.pause_writing()

    def _write_on(self) -> None:
        """The kernel takes more: one write, and what is left after the others had their turn."""
        out = self._out
        try:
            sent = self._sock.sendmsg(out[:_MOST_PIECES])
        except BlockingIOError:
            return
        except OSError as error:
            self.fail(error)
            return
        self._unsent -= sent
        whole = 0
        while whole < len(out) and sent >= len(out[whole]):
            sent -= len(out[whole])
            whole += 1
        del out[:whole]
        if sent:
            out[0] = memoryview(out[0])[sent:]
        self._watch()
        if self._crowded and self._unsent <= _LOW and self._told is not None:
            self._crowded = False
            self._told.resume_writing()
        if not self._unsent:
            self._all_written()

    def _all_written(self) -> None:
        if self._closing:
            self._lose(None)
        elif self._ends:
            self._shut()

    def get_write_buffer_size(self) -> int:
        """See asyncio.Transport."""
        return self._unsent

    # ends

    def can_write_eof(self) -> bool:
        """See asyncio.Transport."""
        return True

    def write_eof(self) -> None:
        """See asyncio.Transport."""
        if not self._ends and not self._closing:
            self._ends = True
            if not self._unsent:
                self._shut()

    def _shut(self) -> None:
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError as error:  # the peer has gone
            self.fail(error)

    def is_closing(self) -> bool:
        """See asyncio.Transport."""
        return self._closing

    def close(self) -> None:
        """See asyncio.Transport."""
        if not self._closing:
            self._closing = True
            self._reading = False
            if not self._unsent:
                self._lose(None)

    def abort(self) -> None:
        """See asyncio.Transport."""
        self._lose(None)

    def fail(self, error: Exception) -> None:
        """It ends because of this."""
        self._lose(error)

    def _lose(self, error: Exception | None) -> None:
        """Nothing is read or written any more; the protocol is told in a turn of its own."""
        if self._descriptor < 0:
            return
        self._poller.forget(self._descriptor)
        self._descriptor = -1
        self._closing = True
        self._reading = False
        self._out = []
        self._unsent = 0
        self._poller.loop.call_soon(self._lost, error)

    def _lost(self, error: Exception | None) -> None:
        told, self._told = self._told, None  # each would keep the other
        self._received = _nothing
        try:
            if told is not None:
                told.connection_lost(error)
        finally:
            self._sock.close()

    def get_extra_info(self, name: str) -> object:
        """The `socket`, or the `peername`; None for whatever else is asked for, or where the peer has gone."""
        if name == "socket":
            return self._sock
        if name == "peername":
            try:
                return self._sock.getpeername()
            except OSError:
                return None
        return None


def _room_after(size: int, room: int) -> int:
    """Bytes to make room for after a read of `size` bytes into `room`."""
    if size >= room:
        return min(room * 8, _MOST_ROOM)
    if size <= _SMALL_READ:
        return _SMALL_ROOM
    return _ROOM if size * 8 < room else room
