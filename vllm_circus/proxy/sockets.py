"""What asyncio does not say about a connection, and the listening sockets that circusd hands us."""

from __future__ import annotations

import asyncio
import select
import socket
import struct
from contextlib import suppress

from vllm_circus.errors import CircusError

#: `TCP_CLOSE` of the kernel's socket states (include/net/tcp_states.h), the first byte of tcp_info (tcp(7)).
_TCP_CLOSE = 7


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


def reset_on_close(transport: asyncio.Transport | None) -> None:
    """Let the close of a TCP connection be a reset: socket(7), SO_LINGER of zero seconds."""
    sock = transport.get_extra_info("socket") if transport is not None else None
    if sock is not None:
        with suppress(OSError, ValueError):  # gone already
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


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
