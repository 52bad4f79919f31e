"""Heads of responses: read strictly, rewritten once. Pure.

Rules: an engine is trusted no more than a client. A head that is not well-formed, or says in two ways where its body
ends, raises `BadResponse` before a byte of it has gone on. Engines' CORS fields never pass: who may call from a
browser is decided by the proxy's configuration alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from vllm_circus.proxy.errors import BadResponse
from vllm_circus.proxy.framing import ByChunks, ByEnd, ByLength, Framing
from vllm_circus.proxy.head import drop_named

#: Bytes of one response head; an engine's is below 1 KiB.
LONGEST_HEAD = 65_536

#: Marks an answer as the proxy's own; no engine's passes.
ERROR_HEADER = b"x-vllm-circus-error"

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]"
_RESPONSE = re.compile(
    rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: ([\t\x20-\x7e\x80-\xff]*+))?\r\n"
    rb"((?:" + _TOKEN + rb"++:[\t\x20-\x7e\x80-\xff]*+\r\n)*+)\r\n"
)
_LENGTH = re.compile(rb"[0-9]{1,18}")
_DROPPED = frozenset(b"keep-alive proxy-connection proxy-authenticate proxy-authorization te".split())
_READ = frozenset(b"connection content-length transfer-encoding upgrade x-vllm-circus-error".split())
_FRAMING = frozenset((b"content-length", b"transfer-encoding"))
_NOTED = frozenset(b"content-type x-request-id x-accel-buffering".split())
_PASSES, _READS = 1, 2  # bits: the line goes on, we look at it


_ROLES = dict.fromkeys(_DROPPED, 0) | dict.fromkeys(_READ, _READS) | dict.fromkeys(_NOTED, _READS | _PASSES)
#: Bytes of a line up to which it is worth remembering.
_USUAL_LINE = 256


@dataclass(slots=True, eq=False)
class ResponseHead:
    """One response's head: `lines` pass to the client, `read` holds the fields that we read, by lower-case name."""

    minor: int
    status: int
    reason: bytes
    lines: list[bytes]
    read: dict[bytes, bytes]
    keep_alive: bool = True

    @property
    def is_stream(self) -> bool:
        """Whether it is a stream of server-sent events."""
        return self.read.get(b"content-type", b"")[:17].lower() == b"text/event-stream"

    @property
    def is_chunked(self) -> bool:
        """Whether the body comes in chunks."""
        return b"transfer-encoding" in self.read


def parse_response(raw: bytes) -> ResponseHead:
    """A whole head, from its status line to the empty line. Raises BadResponse."""
    match = _RESPONSE.fullmatch(raw)
    if match is None:
        raise BadResponse("the engine's header is malformed")
    minor, status, reason, fields = match.groups()
    head = ResponseHead(minor[0] - 48, int(status), reason or b"", [], {})
    keep, read = head.lines, head.read
    for line in fields.split(b"\r\n"):
        if not line:  # the last one
            break
        role, name, value = _read_line(line) if len(line) <= _USUAL_LINE else _read_line.__wrapped__(line)
        if role & _PASSES:
            keep.append(line)
        if role & _READS:
            read[name] = _joined(name, read[name], value) if name in read else value
    _read_connection(head)
    return head


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


def _read_connection(head: ResponseHead) -> None:
    value = head.read.get(b"connection")
    if value is None:
        head.keep_alive = head.minor == 1
        return
    options = {option.strip(b" \t") for option in value.lower().split(b",")}
    head.keep_alive = b"close" not in options and (head.minor == 1 or b"keep-alive" in options)
    named = options - {b"close", b"keep-alive", b"upgrade", b""}
    if named:
        head.lines = drop_named(head.lines, named)


def framing_of(head: ResponseHead, method: bytes) -> Framing | None:
    """How the body ends, or None where there is none (RFC 9112, section 6.3). Raises BadResponse."""
    length, coding = head.read.get(b"content-length"), head.read.get(b"transfer-encoding")
    if coding is not None:
        if length is not None:
            raise BadResponse("the engine's header has both Content-Length and Transfer-Encoding")
        if coding.lower() != b"chunked" or not head.minor:
            raise BadResponse("the engine used a transfer coding that it was not asked for")
    if length is not None and not _LENGTH.fullmatch(length):
        raise BadResponse("the engine's Content-Length is not a number")
    if method == b"HEAD" or head.status in {204, 304} or head.status < 200:
        return None
    if coding is not None:
        return ByChunks()
    if length is not None:
        return ByLength(int(length)) if int(length) else None
    return ByEnd()


def client_head(
    head: ResponseHead, framing: Framing | None, *, request_id: bytes, minor: int, keep_alive: bool, extra: bytes
) -> bytes:
    """The head that goes to the client. `extra` is further lines, each with its line end (CORS).

    `minor` is the client's: one that speaks HTTP/1.0 gets a body without chunks, ended by the end of the connection.
    """
    read = head.read
    start = [b"HTTP/1.1 %d %b" % (head.status, head.reason), *head.lines]
    if head.is_chunked:
        if minor and head.status != 204:
            start.append(b"transfer-encoding: chunked")
    elif b"content-length" in read and head.status != 204:
        start.append(b"content-length: " + read[b"content-length"])
    if b"x-request-id" not in read:
        start.append(b"x-request-id: " + request_id)
    if framing is not None and head.is_stream and b"x-accel-buffering" not in read:
        start.append(b"x-accel-buffering: no")
    if not keep_alive:
        start.append(b"connection: close")
    elif not minor:
        start.append(b"connection: keep-alive")
    return b"\r\n".join(start) + b"\r\n" + extra + b"\r\n"
