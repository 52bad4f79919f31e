"""Heads of responses: read strictly, rewritten once. Pure.

Rules: an engine is trusted no more than a client. A head that is not well-formed, or says in two ways where its body
ends, raises `BadResponse` before a byte of it has gone on. Engines' CORS fields never pass: who may call from a
browser is decided by the proxy's configuration alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from vllm_circus.proxy.errors import BadResponse
from vllm_circus.proxy.fields import (
    LINES,
    PASSES,
    READS,
    USUAL_HEAD,
    USUAL_LINE,
    VALUE,
    cut_length,
    drop_named,
    make_roles,
    read_connection,
    read_length,
    split_line,
    without_length,
)
from vllm_circus.proxy.framing import ByChunks, ByEnd, ByLength, Framing

#: Bytes of one response head; an engine's is below 1 KiB.
LONGEST_HEAD: Final = 65_536

#: Marks an answer as the proxy's own; no engine's passes, nor does its word for who stood in for whom.
ERROR_HEADER: Final = b"x-vllm-circus-error"

_RESPONSE: Final = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: (" + VALUE + rb"))?\r\n" + LINES)
_FRAMING: Final = frozenset((b"content-length", b"transfer-encoding"))
_ROLES: Final = make_roles(
    dropped=b"x-vllm-circus-fallback",
    read=b"connection content-length transfer-encoding upgrade x-vllm-circus-error",
    noted=b"content-type x-request-id x-accel-buffering",
)


@dataclass(frozen=True, slots=True, eq=False)
class ResponseHead:
    """One response's head, less its Content-Length; shared, since engines send the same ones over and over.

    Attributes:
        read: the fields that we read, by lower-case name.
        is_stream: it is a stream of server-sent events.
        is_chunked: the body comes in chunks.
        has_body: responses of its status may have one (RFC 9110, section 6.4.1).
        names_request: it has an X-Request-Id of its own.
        start: what a client gets of it: the status line and the lines that pass, each with its line end.
        before, after: the head as it came, around the digits of its Content-Length; see `read_again`.
    """

    minor: int
    status: int
    read: Mapping[bytes, bytes]
    keep_alive: bool
    is_stream: bool
    is_chunked: bool
    has_body: bool
    names_request: bool
    start: bytes
    before: bytes
    after: bytes


def parse_response(raw: bytes) -> tuple[ResponseHead, int | None]:
    """A whole head, from its status line to the empty line, and its Content-Length. Raises BadResponse."""
    before, after, length = cut_length(raw)
    head = _parse(before, after) if len(raw) <= USUAL_HEAD else _parse.__wrapped__(before, after)
    other = head.read.get(b"content-length")
    if length is not None:
        if other is not None or head.is_chunked:
            raise BadResponse("the engine's header says in two ways how long the body is")
        return head, length
    if other is None:
        return head, None
    length = read_length(other)
    if length is None:
        raise BadResponse("the engine's Content-Length is not a number")
    return head, length


@lru_cache(maxsize=1024)
def _parse(before: bytes, after: bytes) -> ResponseHead:
    """A head without the digits of its Content-Length. Raises BadResponse."""
    match = _RESPONSE.fullmatch(without_length(before, after))
    if match is None:
        raise BadResponse("the engine's header is malformed")
    version, status, reason, fields = match.groups()
    minor = version[0] - 48
    keep: list[bytes] = []
    read: dict[bytes, bytes] = {}
    for line in fields.split(b"\r\n"):
        if not line:  # the last one
            break
        role, name, value = _read_line(line) if len(line) <= USUAL_LINE else _read_line.__wrapped__(line)
        if role & PASSES:
            keep.append(line)
        if role & READS:
            read[name] = _joined(name, read[name], value) if name in read else value
    keep_alive, _, ending = read_connection(read.get(b"connection"), minor)
    if ending:
        keep = drop_named(keep, ending)
    is_stream = read.get(b"content-type", b"")[:17].lower() == b"text/event-stream"
    if is_stream and b"x-accel-buffering" not in read:
        keep.append(b"x-accel-buffering: no")
    start = b"\r\n".join((b"HTTP/1.1 %b %b" % (status, reason or b""), *keep, b""))
    named = b"x-request-id" in read
    has_body = status not in {b"204", b"304"}
    chunked = _is_chunked(read, minor)
    return ResponseHead(minor, int(status), read, keep_alive, is_stream, chunked, has_body, named, start, before, after)


def _is_chunked(read: Mapping[bytes, bytes], minor: int) -> bool:
    coding = read.get(b"transfer-encoding")
    if coding is None:
        return False
    if b"content-length" in read:
        raise BadResponse("the engine's header says in two ways how long the body is")
    if coding.lower() != b"chunked" or not minor:
        raise BadResponse("the engine used a transfer coding that it was not asked for")
    return True


@lru_cache(maxsize=4096)
def _read_line(line: bytes) -> tuple[int, bytes, bytes]:
    """Role, lower-case name and value of a field line: engines send most lines over and over."""
    name, value = split_line(line)
    usual = 0 if name.startswith(b"access-control-") else PASSES
    return _ROLES.get(name, usual), name, value


def _joined(name: bytes, before: bytes, value: bytes) -> bytes:
    """The value of a field that comes again."""
    if name == b"connection":
        return before + b"," + value
    if name in _FRAMING:
        raise BadResponse(f"the engine's header has {name.decode()} twice")
    return value


def framing_of(head: ResponseHead, length: int | None, method: bytes) -> Framing | None:
    """How the body ends, or None where there is none (RFC 9112, section 6.3)."""
    status = head.status
    if method == b"HEAD" or status in {204, 304} or status < 200 or length == 0:
        return None
    if length is not None:
        return ByLength(length)
    return ByChunks() if head.is_chunked else ByEnd()


def client_head(
    head: ResponseHead, length: int | None, *, request_id: bytes, minor: int, keep_alive: bool, extra: bytes
) -> bytes:
    """The head that goes to the client. `extra` is further lines, each with its line end (CORS).

    `minor` is the client's: one that speaks HTTP/1.0 gets a body without chunks, ended by the end of the connection.
    """
    framing = b""
    if head.status != 204:
        if length is not None:
            framing = b"content-length: %d\r\n" % length
        elif head.is_chunked and minor:
            framing = b"transfer-encoding: chunked\r\n"
    connection = b"connection: close\r\n"
    if keep_alive:
        connection = b"" if minor else b"connection: keep-alive\r\n"
    named = b"" if head.names_request else b"x-request-id: %b\r\n" % request_id
    return b"%b%b%b%b%b\r\n" % (head.start, framing, named, connection, extra)
