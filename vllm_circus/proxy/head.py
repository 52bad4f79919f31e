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

from vllm_circus.config.models import Limits
from vllm_circus.proxy.errors import BadMessage

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]"
_FIELDS = rb"((?:" + _TOKEN + rb"++:[\t\x20-\x7e\x80-\xff]*+\r\n)*+)\r\n"
_REQUEST = re.compile(rb"(" + _TOKEN + rb"{1,32}) ([\x21-\x7e]++) HTTP/1\.([01])\r\n" + _FIELDS)
_REQUEST_LINE = re.compile(_TOKEN + rb"{1,32} [\x21-\x7e]++ HTTP/(\d)\.(\d)\r\n")
_ABSOLUTE = re.compile(rb"(?i:https?)://([^/?#]*)(.*)")
_HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]*)(?::[0-9]{0,5})?")
#: Content-Length as clients write it; its line is taken out before the rest is looked up.
_LENGTH_LINE = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: ([0-9]{1,18})(?=\r\n)")
_LENGTH = re.compile(rb"[0-9]{1,18}")
_REQUEST_ID = re.compile(rb"[!-~]{1,128}")

#: What a field is to us: names not listed here pass.
_DROPPED = frozenset(
    b"keep-alive proxy-connection proxy-authenticate proxy-authorization te x-vllm-circus-error".split()
)
#: Read by us, and written anew where an engine should see it.
_READ = frozenset(
    b"host connection content-length transfer-encoding expect authorization x-api-key x-request-id x-forwarded-for"
    b" x-forwarded-proto upgrade".split()
)
#: Read by us, and passed as they are.
_NOTED = frozenset(b"content-type origin access-control-request-method access-control-request-headers".split())

_PASSES, _READS = 1, 2  # bits: the line goes on, we look at it


_ROLES = dict.fromkeys(_DROPPED, 0) | dict.fromkeys(_READ, _READS) | dict.fromkeys(_NOTED, _READS | _PASSES)
#: Bytes of a line up to which it is worth remembering.
_USUAL_LINE = 256
#: The same of a whole head: 1024 of them are some ten megabytes at the most, with what is made of each.
_USUAL_HEAD = 2048


@dataclass(frozen=True, slots=True, eq=False)
class RequestHead:
    """One request's head, less its Content-Length: clients send the same one over and over, so it is shared.

    Attributes:
        path, query: of the target, without the question mark; an absolute target has lost its scheme and host.
        minor: 0 or 1, of HTTP/1.x.
        lines: the field lines that pass to an engine, without line ends.
        keep_alive: the client wants the connection to stay.
        expects: the client waits for `100 Continue` before it sends the body.
        upgrade: the lower-case protocol of an Upgrade that Connection names too, or empty.
        read: the fields that we read ourselves, by lower-case name.
        start, rest: what an engine gets of it, up to the value of Host, and after the fields that we write.
    """

    method: bytes
    path: bytes
    query: bytes
    minor: int
    lines: tuple[bytes, ...]
    chunked: bool
    keep_alive: bool
    expects: bool
    upgrade: bytes
    read: Mapping[bytes, bytes]
    start: bytes
    rest: bytes


#: Stands for the head of what is no request: how it would have gone on is not known.
NO_HEAD = RequestHead(b"", b"", b"", 1, (), True, False, False, b"", {}, b"", b"")


def check_beginning(data: bytes | bytearray, limits: Limits) -> None:
    """Refuse the beginning of a head that can never become a good one. Raises BadMessage."""
    line = data.find(b"\r\n")
    if (len(data) if line < 0 else line) > limits.max_request_line:
        raise BadMessage("The request line is too long.", status=414, code="uri_too_long")
    if line >= 0 and len(data) - line > limits.max_header_bytes + 4:
        raise BadMessage("The header is too large.", status=431, code="header_too_large")
    if data.count(b"\n") != data.count(b"\r\n"):
        raise BadMessage("A line of the header does not end with CRLF.")
    if data and not re.match(_TOKEN + rb"|\r", data[:1]):
        raise BadMessage("This is not an HTTP request.")


def parse_request(raw: bytes, limits: Limits) -> tuple[RequestHead, int | None]:
    """A whole head, from its request line to the empty line, and its Content-Length. Raises BadMessage."""
    line = raw.find(b"\r\n")
    if line > limits.max_request_line:
        raise BadMessage("The request line is too long.", status=414, code="uri_too_long")
    if len(raw) - line > limits.max_header_bytes + 4:
        raise BadMessage("The header is too large.", status=431, code="header_too_large")
    match = _LENGTH_LINE.search(raw)
    shape = raw[: match.start()] + raw[match.end() :] if match is not None else raw
    head = _parse_shape(shape) if len(shape) <= _USUAL_HEAD else _parse_shape.__wrapped__(shape)
    if raw.count(b"\r\n") - 2 > limits.max_header_count:
        raise BadMessage("The header has too many fields.", status=431, code="header_too_large")
    other = head.read.get(b"content-length")
    if match is None:
        return head, _length(other) if other is not None else None
    if other is not None or head.chunked:
        raise _two_framings()
    return head, int(match[1])


@lru_cache(maxsize=1024)
def _parse_shape(raw: bytes) -> RequestHead:
    """A head, perhaps without its Content-Length. Raises BadMessage."""
    match = _REQUEST.fullmatch(raw)
    if match is None:
        raise _explained(raw)
    method, target, version, fields = match.groups()
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
        tuple(lines),
        chunked,
        keep_alive,
        _expects(read.get(b"expect"), minor),
        read.get(b"upgrade", b"").lower() if upgrade else b"",
        read,
        b"%b %b%b HTTP/1.1\r\nHost: " % (method, path, b"?" + query if query else b""),
        b"\r\n".join((b"", *([b"Transfer-Encoding: chunked"] if chunked else []), *lines, b"", b"")),
    )


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
        role, name, value = _read_line(line) if len(line) <= _USUAL_LINE else _read_line.__wrapped__(line)
        if role & _PASSES:
            keep.append(line)
        if role & _READS:
            read[name] = _joined(name, read[name], value) if name in read else value
    return keep, read


@lru_cache(maxsize=4096)
def _read_line(line: bytes) -> tuple[int, bytes, bytes]:
    """Role, lower-case name and value of a field line: clients send most lines over and over."""
    colon = line.find(b":")
    name = line[:colon].lower()
    value = line[colon + 1 :].strip(b" \t")
    # Some servers take `Content_Length` for `Content-Length`: such a twin of a field that matters never passes.
    if b"_" in name and name.replace(b"_", b"-") in _ROLES:
        raise BadMessage("A header field has an underscore where a hyphen belongs.")
    return _ROLES.get(name, _PASSES), name, value


#: Fields that may come more than once: the values are joined with commas, as RFC 9110, section 5.3, allows.
_LISTS = frozenset(b"connection x-forwarded-for access-control-request-headers upgrade".split())


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
    if not _LENGTH.fullmatch(value):
        raise BadMessage("Content-Length is not a number.")
    return int(value)


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


def read_connection(value: bytes | None, minor: int) -> tuple[bool, bool, set[bytes]]:
    """Whether the connection is to stay, whether it is to be upgraded, and the fields that end here with it."""
    if value is None:
        return minor == 1, False, set()
    options = {option.strip(b" \t") for option in value.lower().split(b",")}
    keep_alive = b"close" not in options and (minor == 1 or b"keep-alive" in options)
    return keep_alive, b"upgrade" in options and minor == 1, options - {b"close", b"keep-alive", b"upgrade", b""}


def drop_named(lines: list[bytes], names: set[bytes]) -> list[bytes]:
    """Lines less the fields of those (lower-case) names."""
    return [line for line in lines if line[: line.find(b":")].lower() not in names]


def usable_request_id(given: bytes | None) -> bytes | None:
    """The client's X-Request-Id, where it is one that may go into headers and logs."""
    return given if given is not None and _REQUEST_ID.fullmatch(given) else None


def engine_head(
    head: RequestHead,
    length: int | None,
    *,
    host: bytes,
    request_id: bytes,
    peer: bytes,
    key: bytes | None,
    tunnel: bool = False,
) -> bytes:
    """The head that goes to an engine, framing included: our fields, then the client's lines.

    `key` is the engine's own API key; the client's is never in `lines`. `tunnel` hands the Upgrade on.
    """
    given = head.read.get(b"x-forwarded-for")
    proto = b"https" if head.read.get(b"x-forwarded-proto", b"").lower() == b"https" else b"http"
    return b"%b%b\r\nX-Request-Id: %b\r\nX-Forwarded-For: %b\r\nX-Forwarded-Proto: %b%b%b%b%b" % (
        head.start,
        host,
        request_id,
        peer if given is None else given + b", " + peer,
        proto,
        b"\r\nContent-Length: %d" % length if length is not None else b"",
        b"\r\nConnection: Upgrade\r\nUpgrade: " + head.upgrade if tunnel else b"",
        b"\r\nAuthorization: Bearer " + key if key is not None else b"",
        head.rest,
    )
