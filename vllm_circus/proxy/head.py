"""Heads of requests: read strictly, rewritten once. Pure.

Rules: a head is taken whole or not at all. One regular expression says what is well-formed (RFC 9112, sections 3 and
5), so there is no bare CR or LF, no folded line, no blank before a colon, no name that is not a token and no control
byte in what goes on. Of Content-Length and Transfer-Encoding there is at most one, once. What passes is passed as it
was written: the lines that stay are the client's own bytes, in their order, duplicates included. What was read once
is remembered (bounded), since a client's heads differ in little but their length.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from vllm_circus.config.models import Limits
from vllm_circus.proxy.errors import BadMessage
from vllm_circus.proxy.fields import (
    LINES,
    PASSES,
    READS,
    TOKEN,
    USUAL_LINE,
    drop_named,
    make_roles,
    read_connection,
    read_length,
    split_line,
)

_REQUEST: Final = re.compile(rb"(" + TOKEN + rb"{1,32}) ([\x21-\x7e]++) HTTP/1\.([01])\r\n" + LINES)
_REQUEST_LINE: Final = re.compile(TOKEN + rb"{1,32} [\x21-\x7e]++ HTTP/(\d)\.(\d)\r\n")
_ABSOLUTE: Final = re.compile(rb"(?i:https?)://([^/?#]*)(.*)")
_HOST: Final = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]*)(?::[0-9]{0,5})?")
_REQUEST_ID: Final = re.compile(rb"[!-~]{1,128}")

_ROLES: Final = make_roles(
    dropped=b"x-vllm-circus-error",
    # written anew where an engine should see it
    read=b"host connection content-length transfer-encoding expect authorization x-api-key x-request-id"
    b" x-forwarded-for x-forwarded-proto upgrade",
    noted=b"content-type origin access-control-request-method access-control-request-headers",
)


@dataclass(frozen=True, slots=True, eq=False)
class RequestHead:
    """One request's head, less its Content-Length: clients send the same one over and over, so it is shared.

    Attributes:
        path, query: of the target, without the question mark; an absolute target has lost its scheme and host.
        minor: 0 or 1, of HTTP/1.x.
        line: bytes of the request line.
        keep_alive: the client wants the connection to stay.
        expects: the client waits for `100 Continue` before it sends the body.
        upgrade: the lower-case protocol of an Upgrade that Connection names too, or empty.
        read: the fields that we read ourselves, by lower-case name.
        start, rest: what an engine gets of it: the request line, and the field lines that pass, each with its end.
    """

    method: bytes
    path: bytes
    query: bytes
    minor: int
    line: int
    chunked: bool
    keep_alive: bool
    expects: bool
    upgrade: bytes
    read: Mapping[bytes, bytes]
    start: bytes
    rest: bytes


#: Stands for the head of what is no request: how it would have gone on is not known.
NO_HEAD: Final = RequestHead(b"", b"", b"", 1, 0, True, False, False, b"", {}, b"", b"")


def check_beginning(data: bytes | bytearray, limits: Limits) -> None:
    """Refuse the beginning of a head that can never become a good one. Raises BadMessage."""
    line = data.find(b"\r\n")
    if (len(data) if line < 0 else line) > limits.max_request_line:
        raise BadMessage("The request line is too long.", status=414, code="uri_too_long")
    if line >= 0 and len(data) - line > limits.max_header_bytes + 4:
        raise header_too_large()
    if data.count(b"\n") != data.count(b"\r\n"):
        raise BadMessage("A line of the header does not end with CRLF.")
    if data and not re.match(TOKEN + rb"|\r", data[:1]):
        raise BadMessage("This is not an HTTP request.")


def header_too_large() -> BadMessage:
    """431."""
    return BadMessage("The header is too large.", status=431, code="header_too_large")


def parse_head(raw: bytes, limits: Limits) -> RequestHead:
    """A head, from its request line to the empty line, perhaps without its Content-Length. Raises BadMessage."""
    line = raw.find(b"\r\n")
    if line > limits.max_request_line:
        raise BadMessage("The request line is too long.", status=414, code="uri_too_long")
    match = _REQUEST.fullmatch(raw)
    if match is None:
        raise _explained(raw)
    method, target, version, fields = match.groups()
    if fields.count(b"\r\n") > limits.max_header_count:
        raise BadMessage("The header has too many fields.", status=431, code="header_too_large")
    minor = version[0] - 48
    path, query = _split_target(method, target)
    lines, read = _sort_fields(fields.split(b"\r\n"))
    chunked = _is_chunked(read, minor)
    keep_alive, upgrade, named = read_connection(read.get(b"connection"), minor)
    _check_host(read.get(b"host"), minor)
    if named:
        lines = drop_named(lines, named)
    return RequestHead(
        method,
        path,
        query,
        minor,
        line,
        chunked,
        keep_alive,
        _expects(read.get(b"expect"), minor),
        read.get(b"upgrade", b"").lower() if upgrade else b"",
        read,
        b"%b %b%b HTTP/1.1\r\n" % (method, path, b"?" + query if query else b""),
        b"".join(line + b"\r\n" for line in lines),
    )


def whole_length(head: RequestHead, length: int | None) -> int | None:
    """The Content-Length, where `length` is what `cut_length` took out of the head. Raises BadMessage for two."""
    other = head.read.get(b"content-length")
    if length is None:
        return None if other is None else _length(other)
    if other is not None or head.chunked:
        raise _two_framings()
    return length


def _explained(raw: bytes) -> BadMessage:
    """Why a head is not taken."""
    line = _REQUEST_LINE.match(raw)
    if line is None:
        return BadMessage("The request line is malformed.")
    if line[1] != b"1" or line[2] not in b"01":
        return BadMessage("Only HTTP/1.1 and HTTP/1.0 are spoken here.", status=505, code="bad_version")
    return BadMessage("A header field is malformed.")


def _split_target(method: bytes, target: bytes) -> tuple[bytes, bytes]:
    if target[0] != 47:  # a slash
        absolute = _ABSOLUTE.fullmatch(target)
        if absolute is not None and _HOST.fullmatch(absolute[1]) and absolute[1]:
            target = absolute[2]
            if target[:1] != b"/":
                target = b"/" + target
        elif not (target == b"*" and method == b"OPTIONS"):
            raise BadMessage("The request target is malformed.")
    if b"#" in target:
        raise BadMessage("The request target has a fragment.")
    path, _, query = target.partition(b"?")
    return path, query


def _sort_fields(lines: list[bytes]) -> tuple[list[bytes], dict[bytes, bytes]]:
    """The lines that pass, and the fields that we read. Raises BadMessage."""
    keep: list[bytes] = []
    read: dict[bytes, bytes] = {}
    for line in lines:
        if not line:  # the last one
            break
        role, name, value = _read_line(line) if len(line) <= USUAL_LINE else _read_line.__wrapped__(line)
        if role & PASSES:
            keep.append(line)
        if role & READS:
            read[name] = _joined(name, read[name], value) if name in read else value
    return keep, read


@lru_cache(maxsize=4096)
def _read_line(line: bytes) -> tuple[int, bytes, bytes]:
    """Role, lower-case name and value of a field line: clients send most lines over and over."""
    name, value = split_line(line)
    # Some servers take `Content_Length` for `Content-Length`: such a twin of a field that matters never passes.
    if b"_" in name and name.replace(b"_", b"-") in _ROLES:
        raise BadMessage("A header field has an underscore where a hyphen belongs.")
    return _ROLES.get(name, PASSES), name, value


#: Fields that may come more than once: the values are joined with commas, as RFC 9110, section 5.3, allows.
_LISTS: Final = frozenset(b"connection x-forwarded-for access-control-request-headers upgrade".split())


def _joined(name: bytes, before: bytes, value: bytes) -> bytes:
    """The value of a field that comes again."""
    if name in _LISTS:
        return before + b"," + value
    raise BadMessage(f"The header field {name.decode()} comes twice.")


def _is_chunked(read: Mapping[bytes, bytes], minor: int) -> bool:
    coding = read.get(b"transfer-encoding")
    if coding is None:
        return False
    if b"content-length" in read:
        raise _two_framings()
    if coding.lower() != b"chunked" or not minor:
        raise BadMessage("The only transfer coding here is chunked, with HTTP/1.1.")
    return True


def _two_framings() -> BadMessage:
    return BadMessage("A request has one Content-Length or one Transfer-Encoding, not both and none twice.")


def _length(value: bytes) -> int:
    length = read_length(value)
    if length is None:
        raise BadMessage("Content-Length is not a number.")
    return length


def _expects(value: bytes | None, minor: int) -> bool:
    if value is None or not minor:
        return False
    if value.lower() != b"100-continue":
        raise BadMessage("The only expectation met here is 100-continue.", status=417, code="bad_expectation")
    return True


def _check_host(host: bytes | None, minor: int) -> None:
    """Exactly one Host in HTTP/1.1 (RFC 9112, section 3.2); that there are not two was seen before."""
    if host is None:
        if minor:
            raise BadMessage("The Host header is missing.")
    elif not _HOST.fullmatch(host):
        raise BadMessage("The Host header is malformed.")


def usable_request_id(given: bytes | None) -> bytes | None:
    """The client's X-Request-Id, where it is one that may go into headers and logs."""
    return given if given is not None and _REQUEST_ID.fullmatch(given) else None


def forwarded_lines(peer: bytes, *, secure: bool) -> bytes:
    """The lines that tell an engine who asks, and how: X-Forwarded-For and -Proto, each with its line end."""
    return b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\n" % (peer, b"https" if secure else b"http")


def forwarded(head: RequestHead, peer: bytes, *, secure: bool) -> bytes:
    """The same for a request that says itself whom it is forwarded for."""
    given = head.read.get(b"x-forwarded-for")
    https = secure or head.read.get(b"x-forwarded-proto", b"").lower() == b"https"
    return forwarded_lines(peer if given is None else given + b", " + peer, secure=https)


def engine_head(
    head: RequestHead, length: int | None, lines: bytes, forwarded: bytes, request_id: bytes, *, tunnel: bool = False
) -> bytes:
    """The head that goes to an engine, with one framing: our fields, then the client's lines.

    `lines` are the engine's own (Host, its key), `forwarded` those of `forwarded_lines`, each with its line end; the
    client's key is never among what passes. `length` is that of the body; None stands for chunks, or for no body.
    `tunnel` hands the Upgrade on.
    """
    if length is not None:
        framing = b"Content-Length: %d\r\n" % length
    else:
        framing = b"Transfer-Encoding: chunked\r\n" if head.chunked else b""
    if tunnel:
        framing += b"Connection: Upgrade\r\nUpgrade: %b\r\n" % head.upgrade
    return b"%b%b%bX-Request-Id: %b\r\n%b%b\r\n" % (head.start, lines, forwarded, request_id, framing, head.rest)
