"""Which model a body names, found as the body passes.

Rules: the bytes are read, never kept and never changed. Only the top level matters: for JSON the member `model` of
the outer object, for a form the field `model`. A name that comes twice is taken if both say the same; if they differ,
`conflict` is set and the request is refused, since a backend would read the last one and another reader the first.
Nested values are skipped, not checked: what is wrong inside them is the backend's to find. Memory is bounded: what is
carried from one piece to the next is one short token.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Final, Protocol

from vllm_circus.proxy.errors import Refused

DEEPEST: Final = 200
_LONGEST_KEY = _LONGEST_NAME = 1024
_LONGEST_PART_HEADER: Final = 8192
_QUOTE, _OPEN = 34, b"{["
_BACKSLASH: Final = 92

_WS: Final = rb"[ \t\n\r]*+"
_START: Final = re.compile(rb"(?:\xef\xbb\xbf)?" + _WS + rb"\{" + _WS + rb"(\}?)")
_KEY: Final = re.compile(_WS + rb'"((?:[^"\\]|\\.){0,1024}+)"' + _WS + rb":" + _WS, re.DOTALL)
#: A member whose key needs no decoding: with a short and flat value up to and with what follows it, or with the
#: first byte of another value.
MEMBER: Final = re.compile(
    _WS + rb'"([^"\\]{0,64}+)"' + _WS + rb":" + _WS
    + rb'(?:("[^"\\]{0,256}+"|[-+.0-9A-Za-z]{1,64}+)' + _WS + rb'([,}])|["{\[])'
)  # fmt: skip
_STRING: Final = re.compile(rb'"((?:[^"\\]|\\.){0,1024}+)"', re.DOTALL)
_SCALAR: Final = re.compile(rb"([-+.0-9A-Za-z]{1,64}+)(?=[ \t\n\r,}])")
_AFTER: Final = re.compile(rb"[-+.0-9A-Za-z]*+" + _WS + rb"([,}])")
_AFTER_BEGINNING: Final = re.compile(rb"[-+.0-9A-Za-z]*+" + _WS)
_BLANK: Final = re.compile(_WS)
#: What may be skipped in one go inside a nested value: flat runs, short strings, innermost arrays and objects.
FLAT: Final = re.compile(rb'(?:[^"{}\[\]]++|"[^"\\]{0,64}+"|\[[^"{}\[\]]*+\]|\{[^"{}\[\]]*+\})*+')
_WINDOW: Final = 8192


class BadBody(Refused):
    """The body cannot be read as what it says it is."""

    def __init__(self, message: str) -> None:
        super().__init__(400, "bad_body", message)


class ModelFinder(Protocol):
    """Reads a body piece by piece.

    Attributes:
        name: the model named so far; None where none, null or an empty one was.
        conflict: two different models were named.
    """

    name: str | None
    conflict: bool

    def feed(self, data: bytes, at: int = 0) -> None:
        """Read the next piece, which begins at `at`. Raises BadBody."""

    def finish(self) -> None:
        """The body is complete. Raises BadBody where it should not be."""


class NoModel:
    """For bodies that name no model."""

    name: str | None = None
    conflict = False

    def feed(self, data: bytes, at: int = 0) -> None:
        """See ModelFinder."""

    def finish(self) -> None:
        """See ModelFinder."""


class JsonModel:
    """The member `model` of a JSON object."""

    __slots__ = ("_depth", "_escaped", "_rest", "_seen", "_state", "_wanted", "conflict", "name")

    def __init__(self) -> None:
        self.name: str | None = None
        self.conflict = False
        self._seen = False
        self._rest = b""
        self._depth = 0
        self._escaped = False
        self._wanted = False
        self._state: Callable[[JsonModel, bytes, int], int] = JsonModel._start

    def feed(self, data: bytes, at: int = 0) -> None:
        """See ModelFinder."""
        if self._rest:
            data, at = self._rest + data[at:], 0
            self._rest = b""
        size = len(data)
        while at < size:
            at = self._state(self, data, at)

    def finish(self) -> None:
        """See ModelFinder."""
        if self._rest or self._state is not JsonModel._end:
            raise BadBody("The body is not a whole JSON object.")

    def _carry(self, data: bytes, at: int, limit: int, what: str) -> int:
        """Keep an unfinished token for the next piece."""
        if len(data) - at > limit:
            raise BadBody(f"{what} is malformed or too long.")
        self._rest = data[at:]
        return len(data)

    def _start(self, data: bytes, at: int) -> int:
        match = _START.match(data, at)
        if match is None:
            if data[at:].strip(b" \t\n\r\xef\xbb\xbf"):
                raise BadBody("The body must be a JSON object.")
            return self._carry(data, at, 4096, "The blank before the object")
        if match[1]:
            self._state = JsonModel._end
        else:
            self._state = JsonModel._first if match.end() == len(data) else JsonModel._member
        return match.end()

    def _first(self, data: bytes, at: int) -> int:
        """After the opening brace, where the piece before ended there."""
        at = _BLANK.match(data, at).end()  # type: ignore[union-attr]  # it matches nothing, too
        if data[at : at + 1] == b"}":
            self._state = JsonModel._end
            return at + 1
        if at < len(data):
            self._state = JsonModel._member
        return at

    def _member(self, data: bytes, at: int) -> int:
        match = MEMBER.match(data, at)
        if match is not None:
            key, value, after = match.groups()
            end = match.end()
            if value is None:  # `end` is after the first byte of a long or nested one
                self._wanted = key == b"model"
                return self._value(data, end - 1)
            if key == b"model":
                self._named(value)
            if after == b"}":
                self._state = JsonModel._end
            return end
        match = _KEY.match(data, at)
        if match is None:
            return self._carry(data, at, 2 * _LONGEST_KEY, "A key of the JSON object")
        key = match[1]
        self._wanted = key == b"model" or (b"\\" in key and _decoded(key) == "model")
        self._state = JsonModel._value
        return match.end()

    def _value(self, data: bytes, at: int) -> int:
        """At a value, or at the blank before it."""
        self._state = JsonModel._value
        at = _BLANK.match(data, at).end()  # type: ignore[union-attr]  # it matches nothing, too
        if at == len(data):
            return at
        first = data[at]
        if self._wanted and first not in _OPEN:
            match = _STRING.match(data, at) or _SCALAR.match(data, at)
            if match is None:
                return self._carry(data, at, 2 * _LONGEST_NAME, "The value of `model`")
            self._named(match[0])
            self._state = JsonModel._after
            return match.end()
        if first == _QUOTE:
            self._state = JsonModel._string
            return self._string(data, at + 1)
        if first in _OPEN:
            if self._wanted:
                raise _wrong_type()
            self._depth = 1
            self._state = JsonModel._nested
            return self._nested(data, at + 1)
        if not _SCALAR_BYTE[first]:
            raise BadBody("The body is not valid JSON.")
        self._state = JsonModel._after
        return at

    def _after(self, data: bytes, at: int) -> int:
        """After a value, or in the rest of a number or word."""
        match = _AFTER.match(data, at)
        if match is None:
            end = _AFTER_BEGINNING.match(data, at).end()  # type: ignore[union-attr]  # it matches nothing, too
            if end < len(data):
                raise BadBody("The body is not valid JSON.")
            return end
        self._state = JsonModel._member if match[1] == b"," else JsonModel._end
        return match.end()

    def _end(self, data: bytes, at: int) -> int:
        if data[at:].strip(b" \t\n\r"):
            raise BadBody("Something follows the JSON object.")
        return len(data)

    def _nested(self, data: bytes, at: int) -> int:
        size = len(data)
        while True:
            at = FLAT.match(data, at).end()  # type: ignore[union-attr]  # it matches nothing, too
            if at == size:
                return at
            byte = data[at]
            at += 1
            if byte == _QUOTE:
                self._state = JsonModel._string
                at = self._string(data, at)
                if self._state != JsonModel._nested:
                    return at
            elif byte in _OPEN:
                self._depth += 1
                if self._depth > DEEPEST:
                    raise BadBody(f"The body is nested deeper than {DEEPEST} levels.")
            else:
                self._depth -= 1
                if not self._depth:
                    self._state = JsonModel._after
                    return at

    def _string(self, data: bytes, at: int) -> int:
        """Inside a string; leaves the state as it is where the string goes on in the next piece."""
        if self._escaped and at < len(data):
            self._escaped = False
            at += 1
        end = string_end(data, at)
        if end < 0:
            tail = data[at:]
            self._escaped = (len(tail) - len(tail.rstrip(b"\\"))) % 2 == 1
            return len(data)
        self._state = JsonModel._nested if self._depth else JsonModel._after
        return end

    def _named(self, token: bytes) -> None:
        name = _name_of(token)
        if self._seen and name != self.name:
            self.conflict = True
        self._seen = True
        self.name = name


_SCALAR_BYTE: Final = tuple(chr(byte) in "-+.0123456789" or (chr(byte).isalpha() and byte < 128) for byte in range(256))


def string_end(data: bytes, at: int) -> int:
    """Index after the quote that ends the string whose inside is at `at`, or -1.

    Long strings without escaped quotes are the rule, and `find` is many times faster than any expression.
    """
    for _ in range(4):
        quote = data.find(b'"', at)
        if quote < 0:
            return -1
        before = quote
        while before > at and data[before - 1] == _BACKSLASH:
            before -= 1
        if (quote - before) % 2 == 0:
            return quote + 1
        at = quote + 1
    return _string_end_among_escapes(data, at)


def _string_end_among_escapes(data: bytes, at: int) -> int:
    """The same for a string with many escaped quotes: they are blotted out, a window at a time."""
    while at < len(data):
        window = data[at : at + _WINDOW]
        if (len(window) - len(window.rstrip(b"\\"))) % 2:  # half an escape: its other half belongs to it
            window = data[at : at + _WINDOW + 1]
        quote = window.replace(b"\\\\", b"__").replace(b'\\"', b"__").find(b'"')
        if quote >= 0:
            return at + quote + 1
        at += len(window)
    return -1


def _decoded(inside: bytes) -> str:
    """A JSON string by what stands between its quotes."""
    try:
        if b"\\" not in inside:
            return inside.decode()
        text = json.loads(b'"%b"' % inside)
    except ValueError:  # UnicodeDecodeError is one
        raise BadBody("The body is not valid JSON.") from None
    return str(text)


def _name_of(token: bytes) -> str | None:
    """The model that a JSON token names; None for null and the empty string."""
    if token[0] != _QUOTE:
        if token == b"null":
            return None
        raise _wrong_type()
    return _decoded(token[1:-1]) or None


def _wrong_type() -> Refused:
    return Refused(400, "bad_model", "`model` must be a string.", param="model")


_DISPOSITION_NAME: Final = re.compile(
    rb"(?im)^content-disposition:[ \t]*form-data\b"
    rb'(?:[^;"\r\n]|"(?:[^"\\\r\n]|\\.)*+"|;(?![ \t]*name=))*+;[ \t]*name=(?:"((?:[^"\\\r\n]|\\.)*)"|([^;\s"]+))'
)
_BOUNDARIES: Final = re.compile(rb"(?i);[ \t]*boundary\b")
_BOUNDARY: Final = re.compile(rb'(?i);[ \t]*boundary=(?:"([^"\r\n]{1,70})"|([^;\s",]{1,70}))')


class FormModel:
    """The field `model` of a multipart form (RFC 7578)."""

    __slots__ = ("_delimiter", "_part", "_rest", "_seen", "conflict", "name")

    def __init__(self, content_type: bytes) -> None:
        self._delimiter = form_delimiter(content_type)
        self._rest = b"\r\n"  # so that the first delimiter looks like every other
        self._part = "preamble"  # what the rest is in: preamble, header, model (the field), other, end
        self._seen = False
        self.name: str | None = None
        self.conflict = False

    def feed(self, data: bytes, at: int = 0) -> None:
        """See ModelFinder."""
        data = self._rest + data[at:]
        at = 0
        while at >= 0 and self._part != "end":
            at = self._header(data, at) if self._part == "header" else self._content(data, at)
        self._rest = b"" if self._part == "end" else data[~at:]

    def finish(self) -> None:
        """See ModelFinder."""
        if self._part != "end":
            raise BadBody("The multipart form is not whole.")

    def _header(self, data: bytes, at: int) -> int:
        """What follows a delimiter: `--` at the end, else CRLF and the part's header.

        Like `_content`, it returns where to go on, or `~n` where more has to come and what is before `n` is done with.
        """
        if data.startswith(b"--", at):
            self._part = "end"
            return at
        end = data.find(b"\r\n\r\n", at)
        if end < 0:
            if len(data) - at > _LONGEST_PART_HEADER:
                raise BadBody("A part of the multipart form has no end to its header.")
            return ~at
        self._part = "model" if is_model_part(data, at, end) else "other"
        return end + 2  # the second CRLF may begin the delimiter of an empty part

    def _content(self, data: bytes, at: int) -> int:
        found = data.find(self._delimiter, at)
        if found >= 0:
            if self._part == "model":
                self._named(data[min(at + 2, found) : found])
            self._part = "header"
            return found + len(self._delimiter)
        if self._part == "model":
            if len(data) - at > _LONGEST_NAME:
                raise _long_field()
            return ~at
        return ~max(at, len(data) - len(self._delimiter))

    def _named(self, value: bytes) -> None:
        if len(value) > _LONGEST_NAME:
            raise _long_field()
        try:
            name = value.decode() or None
        except UnicodeDecodeError:
            raise BadBody("The field `model` is not UTF-8.") from None
        if self._seen and name != self.name:
            self.conflict = True
        self._seen = True
        self.name = name


def form_delimiter(content_type: bytes) -> bytes:
    """What stands between the parts of a form. Raises BadBody where the content type does not say."""
    match = _BOUNDARY.search(content_type)
    if match is None:
        raise BadBody("The multipart form has no boundary.")
    if len(_BOUNDARIES.findall(content_type)) > 1:  # readers differ in which one they take
        raise BadBody("The multipart form has several boundaries.")
    return b"\r\n--" + (match[1] or match[2])


def is_model_part(data: bytes, at: int, end: int) -> bool:
    """Whether the part whose header stands there is the field `model`."""
    match = _DISPOSITION_NAME.search(data, at, end)
    return match is not None and (match[1] or match[2]) == b"model"


def _long_field() -> BadBody:
    return BadBody("The field `model` is too long.")
