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

from vllm_circus.proxy.errors import BadResponse
from vllm_circus.proxy.framing import ByChunks, ByEnd, ByLength, Framing
from vllm_circus.proxy.head import drop_named, read_connection

#: Bytes of one response head; an engine's is below 1 KiB.
LONGEST_HEAD = 65_536

#: Marks an answer as the proxy's own; no engine's passes.
ERROR_HEADER = b"x-vllm-circus-error"

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]"
_RESPONSE = re.compile(
    rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: ([\t\x20-\x7e\x80-\xff]*+))?\r\n"
    rb"((?:" + _TOKEN + rb"++:[\t\x20-\x7e\x80-\xff]*+\r\n)*+)\r\n"
)
#: Content-Length as engines write it; its line is taken out before the rest is looked up.
_LENGTH_LINE = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: ([0-9]{1,18})(?=\r\n)")
_LENGTH = re.compile(rb"[0-9]{1,18}")
_DROPPED = frozenset(b"keep-alive proxy-connection proxy-authenticate proxy-authorization te".split())
_READ = frozenset(b"connection content-length transfer-encoding upgrade x-vllm-circus-error".split())
_FRAMING = frozenset((b"content-length", b"transfer-encoding"))
_NOTED = frozenset(b"content-type x-request-id x-accel-buffering".split())
_PASSES, _READS = 1, 2  # bits: the line goes on, we look at it


_ROLES = dict.fromkeys(_DROPPED, 0) | dict.fromkeys(_READ, _READS) | dict.fromkeys(_NOTED, _READS | _PASSES)
#: Bytes of a line up to which it is worth remembering.
_USUAL_LINE = 256
#: The same of a whole head.
_USUAL_HEAD = 2048


@dataclass(frozen=True, slots=True, eq=False)
class ResponseHead:
    """One response's head, less its Content-Length; shared, since engines send the same ones over and over.

    Attributes:
        read: the fields that we read, by lower-case name.
        is_stream: it is a stream of server-sent events.
        is_chunked: the body comes in chunks.
        start: what a client gets of it: the status line and the lines that pass, each with its line end.
    """

    minor: int
    status: int
    read: Mapping[bytes, bytes]
    keep_alive: bool
    is_stream: bool
    is_chunked: bool
    start: bytes


def parse_response(raw: bytes) -> tuple[ResponseHead, int | None]:
    """A whole head, from its status line to the empty line, and its Content-Length. Raises BadResponse."""
    match = _LENGTH_LINE.search(raw)
    shape = raw[: match.start()] + raw[match.end() :] if match is not None else raw
    head = _parse_shape(shape) if len(shape) <= _USUAL_HEAD else _parse_shape.__wrapped__(shape)
    length = head.read.get(b"content-length")
    if match is not None:
        if length is not None or head.is_chunked:
            raise BadResponse("the engine's header says in two ways how long the body is")
        return head, int(match[1])
    if length is None:
        return head, None
    if not _LENGTH.fullmatch(length):
        raise BadResponse("the engine's Content-Length is not a number")
    return head, int(length)


@lru_cache(maxsize=1024)
def _parse_shape(raw: bytes) -> ResponseHead:
    """A head, perhaps without its Content-Length. Raises BadResponse."""
    match = _RESPONSE.fullmatch(raw)
    if match is None:
        raise BadResponse("the engine's header is malformed")
    version, status, reason, fields = match.groups()
    minor = version[0] - 48
    keep: list[bytes] = []
    read: dict[bytes, bytes] = {}
    for line in fields.split(b"\r\n"):
        if not line:  # the last one
            break
        role, name, value = _read_line(line) if len(line) <= _USUAL_LINE else _read_line.__wrapped__(line)
        if role & _PASSES:
            keep.append(line)
        if role & _READS:
            read[name] = _joined(name, read[name], value) if name in read else value
    keep_alive, _, named = read_connection(read.get(b"connection"), minor)
    if named:
        keep = drop_named(keep, named)
    is_stream = read.get(b"content-type", b"")[:17].lower() == b"text/event-stream"
    if is_stream and b"x-accel-buffering" not in read:
        keep.append(b"x-accel-buffering: no")
    start = b"\r\n".join((b"HTTP/1.1 %b %b" % (status, reason or b""), *keep, b""))
    return ResponseHead(minor, int(status), read, keep_alive, is_stream, _is_chunked(read, minor), start)


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
    colon = line.find(b":")
    name = line[:colon].lower()
    usual = 0 if name.startswith(b"access-control-") else _PASSES
    return _ROLES.get(name, usual), name, line[colon + 1 :].strip(b" \t")


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
    named = b"" if b"x-request-id" in head.read else b"x-request-id: %b\r\n" % request_id
    return b"%b%b%b%b%b\r\n" % (head.start, framing, named, connection, extra)
