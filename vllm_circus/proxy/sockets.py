"""What asyncio does not say about a connection, and the listening sockets that circusd hands us."""

from __future__ import annotations

import asyncio
import fcntl
import os
import select
import socket
import struct
import termios
from contextlib import suppress
from typing import Protocol

from vllm_circus.errors import CircusError
from vllm_circus.plan.types import Endpoint

#: `TCP_CLOSE` of the kernel's socket states (include/net/tcp_states.h), the first byte of tcp_info (tcp(7)).
_TCP_CLOSE = 7


class Told(Protocol):
    """Whom a loop tells what happens to a connection: the methods of asyncio.Protocol, which see."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It begins."""

    def data_received(self, data: bytes) -> None:
        """Bytes have come."""

    def eof_received(self) -> bool | None:
        """The peer sends no more; True where the connection is to stay open."""

    def connection_lost(self, exc: Exception | None) -> None:
        """It has ended."""

    def pause_writing(self) -> None:
        """The peer is slow."""

    def resume_writing(self) -> None:
        """The peer has caught up."""


def was_reset(transport: asyncio.Transport | None) -> bool:
    """Whether a TCP connection has been reset by its peer, even if its end was read before."""
    sock = transport.get_extra_info("socket") if transport is not None else None
    if sock is None or sock.family not in {socket.AF_INET, socket.AF_INET6}:
        return False
    try:
        info: bytes = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8)
    except (OSError, ValueError):  # closed here, too: uvloop gives no descriptor any more
        return True
    return info[0] == _TCP_CLOSE


def has_left(transport: asyncio.Transport | None) -> bool:
    """Whether a peer whose end was read is gone altogether, rather than done with sending.

    TCP says so only once something was sent to it; a unix socket says it at once (unix(7): both directions are shut).
    """
    sock = transport.get_extra_info("socket") if transport is not None else None
    if sock is None or sock.family != socket.AF_UNIX:
        return was_reset(transport)
    try:
        poller = select.poll()
        poller.register(sock.fileno(), 0)
        return any(event & (select.POLLHUP | select.POLLNVAL) for _, event in poller.poll(0))
    except (OSError, ValueError):  # closed here, too
        return True


def has_ended(transport: asyncio.Transport | None) -> bool:
    """Whether a peer has sent its end, or is gone, though what came before that was not read (poll(2))."""
    sock = transport.get_extra_info("socket") if transport is not None else None
    if sock is None:
        return True
    try:
        poller = select.poll()
        poller.register(sock.fileno(), select.POLLRDHUP)
        return bool(poller.poll(0))
    except (OSError, ValueError):  # closed here, too
        return True


def is_at_rest(transport: asyncio.Transport) -> bool:
    """Whether nothing is under way on it: nothing to be sent, and nothing that came and was not read.

    Behind TLS its buffer is not all that waits to be sent; so there what the peer has not acknowledged counts, too.
    """
    sock = transport.get_extra_info("socket")
    if sock is None or transport.get_write_buffer_size():
        return False
    secure = transport.get_extra_info("sslcontext") is not None
    with suppress(OSError, ValueError):  # closed here, too
        return not (_queued(sock, termios.FIONREAD) or (secure and _queued(sock, termios.TIOCOUTQ)))
    return False


def _queued(sock: socket.socket, request: int) -> int:
    """Bytes in one of a socket's queues (tcp(7), unix(7): SIOCINQ, SIOCOUTQ). Raises OSError."""
    return int(struct.unpack("i", fcntl.ioctl(sock.fileno(), request, bytes(4)))[0])


def unsent(transport: asyncio.Transport | None) -> int:
    """Bytes that were written and that the peer has not acknowledged (tcp(7)), or not read (unix(7))."""
    sock = transport.get_extra_info("socket") if transport is not None else None
    if transport is None or sock is None:
        return 0
    with suppress(OSError, ValueError):  # closed here, too
        return transport.get_write_buffer_size() + _queued(sock, termios.TIOCOUTQ)
    return 0


def unread(transport: asyncio.Transport | None, most: int) -> bytes:
    """What had come on a connection before it failed in being written to, at most so many bytes; its end is near."""
    sock = transport.get_extra_info("socket") if transport is not None else None
    parts: list[bytes] = []
    with suppress(OSError, ValueError):  # nothing more, or closed here, too
        while sock is not None and most and (data := os.read(sock.fileno(), most)):
            parts.append(data)
            most -= len(data)
    return b"".join(parts)


def reset_on_close(transport: asyncio.Transport | None, *, on: bool = True) -> None:
    """Let the close of a TCP connection be a reset, or not: socket(7), SO_LINGER of zero seconds."""
    sock = transport.get_extra_info("socket") if transport is not None else None
    if sock is not None:
        with suppress(OSError, ValueError):  # gone already
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", on, 0))


async def connect(loop: asyncio.AbstractEventLoop, endpoint: Endpoint) -> socket.socket:
    """A connection to it, of the first of its addresses that takes one. Raises OSError."""
    if endpoint.uds:
        return await _connect(loop, socket.AF_UNIX, endpoint.uds)
    found = await loop.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
    for family, _, _, _, address in found[:-1]:
        with suppress(OSError):
            return await _connect(loop, family, address)
    return await _connect(loop, found[-1][0], found[-1][4])


async def _connect(loop: asyncio.AbstractEventLoop, family: int, address: tuple[object, ...] | str) -> socket.socket:
    """The loop's own `sock_connect` resolves addresses anew, in threads, and takes a full backlog for a connection."""
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        try:
            sock.connect(address)
        except BlockingIOError:
            if family == socket.AF_UNIX:  # no connection is under way: its backlog is full (connect(2), EAGAIN)
                raise
            await _connected(loop, sock)
    except BaseException:  # given up, too
        sock.close()
        raise
    return sock


async def _connected(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
    """Wait until a connection that is under way has come about. Raises OSError."""
    known = asyncio.Event()
    loop.add_writer(sock.fileno(), known.set)
    try:
        await known.wait()
    finally:
        loop.remove_writer(sock.fileno())
    error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if error:
        raise OSError(error, os.strerror(error))


def inherited_socket(descriptor: int) -> socket.socket:
    """The listening socket that was handed to us. Raises CircusError where it is none."""
    try:
        listener = socket.socket(fileno=descriptor)
        listening = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise CircusError(f"descriptor {descriptor} is no socket: {error.strerror}") from None
    if not listening:
        raise CircusError(f"descriptor {descriptor} is a socket that does not listen")
    listener.setblocking(False)
    return listener
