"""Where a message's body ends: by its length, by its chunks, or by the end of the connection.

Rules: the bytes are never changed; a reader is told each piece as it arrives and says where in it the message ends.
The grammar is that of RFC 9112, section 7.1, and nothing wider: a chunk size is hexadecimal digits and nothing else,
line ends are CRLF. What is doubtful raises `BadFraming`, since two readers that
disagree about an end are a hole.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Final

MORE: Final = -1
_LF: Final = 10

_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
_QUOTED: Final = rb'"(?:[\t\x20-\x21\x23-\x5b\x5d-\x7e]|\\[\t\x20-\x7e])*+'
_EXTENSION: Final = rb"(?:;" + _TOKEN + rb"(?:=(?:" + _TOKEN + rb"|" + _QUOTED + rb'"))?+)'
_SIZE_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})" + _EXTENSION + rb"*+\r\n")
#: What may still become a size line.
_SIZE_BEGINNING: Final = re.compile(
    rb"[0-9A-Fa-f]{1,15}" + _EXTENSION + rb"*(?:\r|;(?:" + _TOKEN + rb"(?:=(?:" + _QUOTED + rb"\\?+)?)?)?)?"
)
_LONGEST_SIZE_LINE: Final = 1100
#: Chunks shorter than this, all in all, are compared with what they usually look like.
_USUAL_SIZES: Final = 2048
_TRAILER: Final = re.compile(rb"(" + _TOKEN + rb"):[\t\x20-\x7e\x80-\xff]*+\r\n")
#: What may still become a trailer, or the empty line.
_TRAILER_BEGINNING: Final = re.compile(rb"\r|" + _TOKEN + rb"(?::[\t\x20-\x7e\x80-\xff]*+\r?)?")
_LONGEST_TRAILER: Final = 8192
_MOST_TRAILERS: Final = 64
#: Fields that say how a message is read or who sent it: RFC 9110, section 6.5.1, allows none of them in trailers.
_NOT_IN_TRAILERS: Final = frozenset(
    b"authorization connection content-encoding content-length content-range content-type cookie expect forwarded host"
    b" keep-alive proxy-authorization set-cookie te trailer transfer-encoding upgrade x-api-key x-forwarded-for"
    b" x-forwarded-host x-forwarded-proto x-request-id".split()
)


class BadFraming(Exception):
    """The body does not follow its framing."""


class Framing:
    """Finds the end of one message's body.

    Attributes:
        payload: bytes of the body proper, framing left out.
        between: the next byte begins a chunk, or whatever else a writer may put something of its own before.
        ends_with_connection: the end of the connection is the end of the body.
        line: bytes of the size line where the last piece was one whole chunk and nothing else; 0 where it was not.
    """

    __slots__ = ("between", "ends_with_connection", "line", "payload")

    def __init__(self, *, between: bool, ends_with_connection: bool = False) -> None:
        self.payload = self.line = 0
        self.between = between
        self.ends_with_connection = ends_with_connection

    def feed(self, data: bytes, at: int = 0, into: list[bytes] | None = None) -> int:
        """Read on from `at`: returns the index after the message's last byte, or `MORE`.

        `into` gets the body proper. Raises BadFraming.
        """
        raise NotImplementedError


class ByLength(Framing):
    """A body of so many bytes."""

    __slots__ = ("left",)

    def __init__(self, length: int) -> None:
        super().__init__(between=False)
        self.left = length

    def feed(self, data: bytes, at: int = 0, into: list[bytes] | None = None) -> int:
        """See Framing."""
        have = len(data) - at
        if have < self.left:
            self.left -= have
            self.payload += have
            if into is not None:
                into.append(data[at:] if at else data)
            return MORE
        end = at + self.left
        self.payload += self.left
        self.left = 0
        if into is not None:
            into.append(data[at:end])
        return end


class ByEnd(Framing):
    """A body that ends with its connection."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(between=True, ends_with_connection=True)

    def feed(self, data: bytes, at: int = 0, into: list[bytes] | None = None) -> int:
        """See Framing."""
        self.payload += len(data) - at
        if into is not None:
            into.append(data[at:] if at else data)
        return MORE


@cache
def _usual_size_lines() -> list[bytes | None]:
    """By the length of a whole chunk its size line, as servers write it: to compare it costs a tenth of reading it."""
    lines = [b"%x\r\n" % size for size in range(1, _USUAL_SIZES)]
    by_length = {len(line) + size + 2: line for size, line in enumerate(lines, 1)}
    return [by_length.get(length) for length in range(_USUAL_SIZES)]


class ByChunks(Framing):
    """A body of chunks (`Transfer-Encoding: chunked`) with its trailers."""

    __slots__ = ("_left", "_part", "_trailers", "_trailing", "_usual")

    def __init__(self) -> None:
        super().__init__(between=True)
        self._usual = _usual_size_lines()
        self._left = 0  # of the present chunk, its CRLF counted in
        self._part = b""  # of a line that goes on in the next piece
        self._trailing = False
        self._trailers = 0

    def feed(self, data: bytes, at: int = 0, into: list[bytes] | None = None) -> int:
        """See Framing."""
        size = len(data)
        if self.between and into is None and not at and size < _USUAL_SIZES:
            line = self._usual[size]  # the usual case: a whole chunk, and nothing else
            if line is not None and data.startswith(line) and data.endswith(b"\r\n"):
                self.line = len(line)
                self.payload += size - self.line - 2
                return MORE
        self.line = 0
        if self._part:
            data, at, shift = self._part + data[at:], 0, len(self._part) - at
            self._part = b""
            size = len(data)
        else:
            shift = 0
        while at < size:
            if self._trailing:
                at, ended = self._trailer(data, at)
                if ended:
                    return at - shift
            elif self._left:
                at = self._chunk(data, at, size, into)
            else:
                at = self._size(data, at)
        self.between = not self._left and not self._part and not self._trailing
        return MORE

    def _size(self, data: bytes, at: int) -> int:
        match = _SIZE_LINE.match(data, at)
        if match is None:
            if len(data) - at > _LONGEST_SIZE_LINE or b"\n" in data[at:]:
                raise BadFraming("a chunk size is malformed")
            self._part = data[at:]
            _check_part(self._part)
            return len(data)
        size = int(match[1], 16)
        if size:
            self._left = size + 2
            self.payload += size
        else:
            self._trailing = True
        return match.end()

    def _chunk(self, data: bytes, at: int, size: int, into: list[bytes] | None) -> int:
        end = at + self._left
        stop = min(end, size)
        self._left = end - stop
        # the last two bytes of `end` are the chunk's CRLF, of which this piece may hold none, one or both
        crlf = max(end - 2, at)
        if stop > crlf and data[crlf:stop] != b"\r\n"[crlf - end + 2 : 2 - (end - stop)]:
            raise BadFraming("a chunk does not end where it should")
        if into is not None and min(end - 2, stop) > at:
            into.append(data[at : min(end - 2, stop)])
        return stop

    def _trailer(self, data: bytes, at: int) -> tuple[int, bool]:
        """One line after the last chunk, and whether it ends the message, as the empty one does."""
        if data.startswith(b"\r\n", at):
            self._trailing = False
            return at + 2, True
        match = _TRAILER.match(data, at)
        if match is None:
            if len(data) - at > _LONGEST_TRAILER or b"\n" in data[at:]:
                raise BadFraming("a trailer is malformed")
            self._part = data[at:]
            if not _TRAILER_BEGINNING.fullmatch(self._part):
                raise BadFraming("a trailer is malformed")
            return len(data), False
        if match[1].lower().replace(b"_", b"-") in _NOT_IN_TRAILERS:
            raise BadFraming("a trailer has a field that belongs into the header")
        self._trailers += 1
        if self._trailers > _MOST_TRAILERS:
            raise BadFraming("there are too many trailers")
        return match.end(), False


def count_events(data: bytes, line: int) -> int:
    """The events that end in this piece of a stream; `line` is that of its framing.

    One event in one chunk is the rule, and to look for one byte costs a fraction of counting two.
    """
    end = len(data) - 4
    if 0 < line <= end and data.endswith(b"\n\n\r\n") and _LF not in data[line:end]:
        return 1
    return data.count(b"\n\n")


def _check_part(part: bytes) -> None:
    """Refuse at once what can never become a size line, so that nobody waits for its end."""
    if not _SIZE_BEGINNING.fullmatch(part):
        raise BadFraming("a chunk size is malformed")
