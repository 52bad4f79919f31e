"""Where the members of a whole JSON object stand. Pure.

Rules: values are skipped, not parsed: nothing is built, nothing recurses, and what is wrong inside them is the
engine's to find. For every body that a JSON parser takes, members are found where it finds them, also under escaped
names, and each time that one comes. The steps of one reading have a bound. For a body that comes in pieces see
bodymodel.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from vllm_circus.proxy.bodymodel import DEEPEST, BadBody

_WS = rb"[ \t\n\r]*+"
_START = re.compile(rb"(?:\xef\xbb\xbf)?" + _WS + rb"(?=\{)")
_INSIDE = re.compile(rb"\{" + _WS + rb"(\}?)")
#: A member with a short and flat value, up to and with what follows it, or up to the first byte of another value.
_MEMBER = re.compile(
    rb'"((?:[^"\\]++|\\.)*+)"' + _WS + rb":" + _WS
    + rb'(?:("[^"\\]{0,256}+"|[-+.0-9A-Za-z]++)' + _WS + rb'(?P<after>[,}])' + _WS + rb'|(?=["{\[]))',
    re.DOTALL,
)  # fmt: skip
_AFTER = re.compile(_WS + rb"(?P<after>[,}])" + _WS)
_STRING_REST = re.compile(rb'(?:[^"\\]++|\\.)*+"', re.DOTALL)


def _brackets(levels: int) -> bytes:
    """What may be skipped in one go: flat runs, short strings, arrays and objects of those up to so many levels."""
    flat = rb'[^"{}\[\]]++|"[^"\\]{0,64}+(?:\\.[^"\\]{0,64}+){0,4}+"'
    inside = rb"(?:" + flat + rb")*+"
    for _ in range(levels):
        inside = rb"(?:" + flat + rb"|\[" + inside + rb"\]|\{" + inside + rb"\})*+"
    return inside


_SKIPPED = re.compile(_brackets(2), re.DOTALL)
_QUOTE, _BACKSLASH, _CLOSING = b'"\\}'

#: Steps of one reading, a third of a microsecond each: a body of nothing but brackets may not hold the loop for long.
_MOST_STEPS = 1_000_000

#: Where a value begins and ends.
Span = tuple[int, int]
#: What stands where afterwards; an empty span inserts.
Edit = tuple[Span, bytes]


@dataclass(frozen=True, slots=True)
class Found:
    """What an object holds.

    Attributes:
        members: the spans of the values of those that were asked for, in order.
        last: where its closing brace stands.
        is_empty: it has no member at all.
    """

    members: Mapping[bytes, list[Span]]
    last: int
    is_empty: bool


def find_members(body: bytes, names: Collection[bytes]) -> Found:
    """These members of a body. Raises BadBody where it is not a JSON object, or too deep to be read."""
    start = _START.match(body)
    if start is None:
        raise BadBody("The body must be a JSON object.")
    found = _Reader(body).find(start.end(), names)
    if body[found.last + 1 :].strip(b" \t\n\r"):
        raise BadBody("Something follows the JSON object.")
    return found


def find_inner(value: bytes, names: Collection[bytes]) -> Found:
    """These members of a value that is an object. Raises BadBody."""
    return _Reader(value).find(0, names)


def edited(text: bytes, edits: Iterable[Edit]) -> bytes:
    """The text with these edits, which do not overlap; the same object where there are none."""
    parts: list[bytes] = []
    done = 0
    for (begin, end), new in sorted(edits):
        parts += (text[done:begin], new)
        done = end
    return b"".join((*parts, text[done:])) if parts else text


class _Reader:
    """Finds members and the ends of values in one text."""

    __slots__ = ("_left", "_text")

    def __init__(self, text: bytes) -> None:
        self._text = text
        self._left = _MOST_STEPS

    def find(self, at: int, names: Collection[bytes]) -> Found:
        """These members of the object whose brace is at `at`. Raises BadBody."""
        text = self._text
        inside = self._step(_INSIDE.match(text, at))
        at = inside.end()
        if inside[1]:
            return Found({}, at - 1, is_empty=True)
        members: dict[bytes, list[Span]] = {}
        while True:
            member = after = self._step(_MEMBER.match(text, at))
            span = member.span(2)
            if span[0] < 0:  # a long or nested value
                span = member.end(), self._value_end(member.end())
                after = self._step(_AFTER.match(text, span[1]))
            name = _decoded(member[1]) if b"\\" in member[1] else member[1]
            if name in names:
                members.setdefault(name, []).append(span)
            last = after.start("after")
            if text[last] == _CLOSING:
                return Found(members, last, is_empty=False)
            at = after.end()

    def _value_end(self, at: int) -> int:
        """Index after the string, array or object that begins at `at`. Raises BadBody."""
        text = self._text
        if text[at] == _QUOTE:
            return _string_end(text, at + 1)
        depth, size = 0, len(text)
        while at < size:
            byte = text[at]
            at += 1
            if byte == _QUOTE:
                at = _string_end(text, at)
            elif byte in b"{[":
                depth += 1
                if depth > DEEPEST:
                    raise BadBody(f"The body is nested deeper than {DEEPEST} levels.")
            else:
                depth -= 1
                if not depth:
                    return at
            at = self._step(_SKIPPED.match(text, at)).end()
        raise _invalid()

    def _step(self, match: re.Match[bytes] | None) -> re.Match[bytes]:
        """The next token, where there is one and not too many were before."""
        if match is None:
            raise _invalid()
        self._left -= 1
        if self._left < 0:
            raise BadBody("The body has too many values within values.")
        return match


def _string_end(text: bytes, at: int) -> int:
    """Index after the quote that ends the string whose inside is at `at`. Raises BadBody.

    `find` is many times faster than any expression, and most long strings have few escaped quotes.
    """
    for _ in range(8):
        quote = before = text.find(b'"', at)
        if quote < 0:
            raise _invalid()
        while before > at and text[before - 1] == _BACKSLASH:
            before -= 1
        if (quote - before) % 2 == 0:
            return quote + 1
        at = quote + 1
    rest = _STRING_REST.match(text, at)
    if rest is None:
        raise _invalid()
    return rest.end()


def _decoded(name: bytes) -> bytes:
    """A name that is spelled with escapes; what is not ASCII in it may come out wrong, since nobody asks for it."""
    try:
        return str(json.loads(f'"{name.decode("latin-1")}"')).encode("utf-8", "surrogatepass")
    except ValueError:
        raise _invalid() from None


def _invalid() -> BadBody:
    return BadBody("The body is not valid JSON.")
