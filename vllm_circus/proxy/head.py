"""Heads of requests: read strictly, rewritten once. Pure.

Rules: a head is taken whole or not at all. One regular expression says what is well-formed (RFC 9112, sections 3 and
5), so there is no bare CR or LF, no folded line, no blank before a colon, no name that is not a token and no control
byte in what goes on. Of Content-Length and Transfer-Encoding there is at most one, once. What passes is passed as it
was written: the lines that stay are the client's own bytes, in their order, duplicates included.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache

from vllm_circus.config.models import Limits
from vllm_circus.proxy.errors import BadMessage

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]"
_FIELDS = rb"((?:" + _TOKEN + rb"++:[\t\x20-\x7e\x80-\xff]*+\r\n)*+)\r\n"
_REQUEST = re.compile(rb"(" + _TOKEN + rb"{1,32}) ([\x21-\x7e]++) HTTP/1\.([01])\r\n" + _FIELDS)
_REQUEST_LINE = re.compile(_TOKEN + rb"{1,32} [\x21-\x7e]++ HTTP/(\d)\.(\d)\r\n")
_ABSOLUTE = re.compile(rb"(?i:https?)://([^/?#]*)(.*)")
_HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]*)(?::[0-9]{0,5})?")
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


@dataclass(slots=True, eq=False)
class RequestHead:
    """One request's head.

    Attributes:
        path, query: of the target, without the question mark; an absolute target has lost its scheme and host.
        minor: 0 or 1, of HTTP/1.x.
        lines: the field lines that pass to an engine, without line ends.
        length: Content-Length, or None.
        keep_alive: the client wants the connection to stay.
        expects: the client waits for `100 Continue` before it sends the body.
        upgrade: the lower-case protocol of an Upgrade that Connection names too, or empty.
        read: the fields that we read ourselves, by lower-case name.
    """

    method: bytes
    path: bytes
    query: bytes
    minor: int
    lines: list[bytes]
    length: int | None = None
    chunked: bool = False
    keep_alive: bool = True
    expects: bool = False
    upgrade: bytes = b""
    read: dict[bytes, bytes] = field(default_factory=dict)

    @property
    def has_body(self) -> bool:
        """Whether any byte of a body is announced."""
        return self.chunked or bool(self.length)


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


def parse_request(raw: bytes, limits: Limits) -> RequestHead:
    """A whole head, from its request line to the empty line. Raises BadMessage."""
    match = _REQUEST.fullmatch(raw)
    if match is None:
        raise _explained(raw, limits)
    method, target, minor, fields = match.groups()
    if match.end(3) > limits.max_request_line:
        raise BadMessage("The request line is too long.", status=414, code="uri_too_long")
    if len(fields) > limits.max_header_bytes:
        raise BadMessage("The header is too large.", status=431, code="header_too_large")
    path, query = _split_target(method, target)
    head = RequestHead(method, path, query, minor[0] - 48, [])
    lines = fields.split(b"\r\n")
    if len(lines) - 1 > limits.max_header_count:
        raise BadMessage("The header has too many fields.", status=431, code="header_too_large")
    _sort_fields(head, lines)
    _read_framing(head)
    _read_connection(head)
    return head


def _explained(raw: bytes, limits: Limits) -> BadMessage:
    """Why a head is not taken."""
    check_beginning(raw, limits)
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


def _sort_fields(head: RequestHead, lines: list[bytes]) -> None:
    """Keep the lines that pass, note the fields that we read."""
    keep, read = head.lines, head.read
    for line in lines:
        if not line:  # the last one
            break
        role, name, value = _read_line(line) if len(line) <= _USUAL_LINE else _read_line.__wrapped__(line)
        if role & _PASSES:
            keep.append(line)
        if role & _READS:
            if name in read:
                value = _joined(name, read[name], value)
            read[name] = value


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


def _read_framing(head: RequestHead) -> None:
    read = head.read
    _check_host(read.get(b"host"), head.minor)
    length, coding = read.get(b"content-length"), read.get(b"transfer-encoding")
    if length is not None:
        if coding is not None:
            raise BadMessage("A request has either Content-Length or Transfer-Encoding, not both.")
        if not _LENGTH.fullmatch(length):
            raise BadMessage("Content-Length is not a number.")
        head.length = int(length)
    elif coding is not None:
        if coding.lower() != b"chunked" or not head.minor:
            raise BadMessage("The only transfer coding here is chunked, with HTTP/1.1.")
        head.chunked = True
    expect = read.get(b"expect")
    if expect is not None and head.minor:
        if expect.lower() != b"100-continue":
            raise BadMessage("The only expectation met here is 100-continue.", status=417, code="bad_expectation")
        head.expects = head.has_body


def _check_host(host: bytes | None, minor: int) -> None:
    """Exactly one Host in HTTP/1.1 (RFC 9112, section 3.2); that there are not two was seen before."""
    if host is None:
        if minor:
            raise BadMessage("The Host header is missing.")
    elif not _HOST.fullmatch(host):
        raise BadMessage("The Host header is malformed.")


def _read_connection(head: RequestHead) -> None:
    value = head.read.get(b"connection")
    if value is None:
        head.keep_alive = head.minor == 1
        return
    options = {option.strip(b" \t") for option in value.lower().split(b",")}
    head.keep_alive = b"close" not in options and (head.minor == 1 or b"keep-alive" in options)
    if b"upgrade" in options and head.minor:
        head.upgrade = head.read.get(b"upgrade", b"").lower()
    named = options - {b"close", b"keep-alive", b"upgrade", b""}
    if named:
        head.lines = drop_named(head.lines, named)


def drop_named(lines: list[bytes], names: set[bytes]) -> list[bytes]:
    """Lines less the fields of those (lower-case) names."""
    return [line for line in lines if line[: line.find(b":")].lower() not in names]


def usable_request_id(given: bytes | None) -> bytes | None:
    """The client's X-Request-Id, where it is one that may go into headers and logs."""
    return given if given is not None and _REQUEST_ID.fullmatch(given) else None


def engine_head(head: RequestHead, *, host: bytes, request_id: bytes, peer: bytes, key: bytes | None) -> bytes:
    """The head that goes to an engine, framing included: the client's lines, with ours in front.

    `key` is the engine's own API key; the client's is never in `lines`.
    """
    read = head.read
    given = read.get(b"x-forwarded-for")
    proto = b"https" if read.get(b"x-forwarded-proto", b"").lower() == b"https" else b"http"
    query = b"?" + head.query if head.query else b""
    start = [
        b"%b %b%b HTTP/1.1\r\nHost: %b\r\nX-Request-Id: %b\r\nX-Forwarded-For: %b\r\nX-Forwarded-Proto: %b"
        % (head.method, head.path, query, host, request_id, given + b", " + peer if given else peer, proto)
    ]
    if head.chunked:
        start.append(b"Transfer-Encoding: chunked")
    elif head.length is not None:
        start.append(b"Content-Length: %d" % head.length)
    if head.upgrade:
        start.append(b"Connection: Upgrade\r\nUpgrade: " + head.upgrade)
    if key is not None:
        start.append(b"Authorization: Bearer " + key)
    start += head.lines
    return b"\r\n".join(start) + b"\r\n\r\n"
