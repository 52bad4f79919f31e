"""Edits of a request's JSON object: members added, numbers lowered, the usage of a stream asked for. Pure.

Rules: only what was configured is touched, at the top level; every other byte stays as it came, and a body in which
nothing changes is handed on as the same object. Values are skipped, not parsed: nothing is built, nothing recurses,
and what is wrong inside them is the engine's to find. For every body that a JSON parser takes, members are found where
it finds them, also under escaped names; of a name that comes several times every value is lowered, so it does not
matter which one counts. What is no number stays for the engine to refuse.

Usage is asked for only where the engine would stream without it: where `stream` is true and `stream_options` is
missing, null, or an object that does not ask. One that has `continuous_usage_stats` set stays as it is, since with
the usage every event of its stream would change.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import inf

from vllm_circus.config.models import RequestRules
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
_NUMBER = re.compile(rb"(?:0|[1-9][0-9]*+)(\.[0-9]++)?+([eE][-+]?[0-9]++)?+")
#: An integer of more digits than this is above every limit: reading it would take long.
_MOST_DIGITS = 400


def _brackets(levels: int) -> bytes:
    """What may be skipped in one go: flat runs, short strings, arrays and objects of those up to so many levels."""
    flat = rb'[^"{}\[\]]++|"[^"\\]{0,64}+(?:\\.[^"\\]{0,64}+){0,4}+"'
    inside = rb"(?:" + flat + rb")*+"
    for _ in range(levels):
        inside = rb"(?:" + flat + rb"|\[" + inside + rb"\]|\{" + inside + rb"\})*+"
    return inside


_SKIPPED = re.compile(_brackets(2), re.DOTALL)
_USAGE = b'"include_usage":true'
_OPTIONS = frozenset((b"include_usage", b"continuous_usage_stats"))
_NOT_SET = frozenset((None, b"false", b"null"))
_QUOTE, _BACKSLASH, _CLOSING = b'"\\}'

#: Steps of one reading, a third of a microsecond each: a body of nothing but brackets may not hold the loop for long.
_MOST_STEPS = 1_000_000

#: Where a value begins and ends.
Span = tuple[int, int]
#: What stands where afterwards; an empty span inserts.
Edit = tuple[Span, bytes]


@dataclass(frozen=True, slots=True)
class _Found:
    """The members asked for, `last`: where the closing brace stands, `end`: what is after it."""

    members: Mapping[bytes, list[Span]]
    last: int
    is_empty: bool

    @property
    def end(self) -> int:
        return self.last + 1


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A body after its edits; `added_usage`: its client did not ask for the usage and is not to see it."""

    body: bytes
    added_usage: bool


class Rewriter:
    """The edits for the requests of one model."""

    __slots__ = ("_defaults", "_include_usage", "_limits", "_names")

    def __init__(self, rules: RequestRules, *, include_usage: bool) -> None:
        """`include_usage` is for paths whose streams have the usage event: chat and completions."""
        self._include_usage = include_usage
        self._limits = {name.encode(): (limit, _dumped(limit)) for name, limit in rules.limits.items() if limit < inf}
        self._defaults = {
            name.encode(): self._lowered(name.encode(), _dumped(value)) for name, value in rules.defaults.items()
        }
        usage = (b"stream", b"stream_options") if include_usage else ()
        self._names = frozenset((*self._limits, *self._defaults, *usage))

    @property
    def changes_nothing(self) -> bool:
        """No body needs to come here."""
        return not self._names

    def rewrite(self, body: bytes) -> Rewritten:
        """The body to send on. Raises BadBody where it is not a JSON object, or too deep to be read."""
        start = _START.match(body)
        if start is None:
            raise BadBody("The body must be a JSON object.")
        found = _Reader(body).find(start.end(), self._names)
        if body[found.end :].strip(b" \t\n\r"):
            raise BadBody("Something follows the JSON object.")
        edits = list(self._lower(body, found.members))
        added = {name: text for name, text in self._defaults.items() if name not in found.members}
        adds_usage = self._include_usage and _add_usage(body, found.members, added, edits)
        if added:
            text = b",".join(b'"%b":%b' % member for member in added.items())
            edits.append(((found.last, found.last), text if found.is_empty else b"," + text))
        return Rewritten(_edited(body, edits), adds_usage)

    def _lower(self, body: bytes, members: Mapping[bytes, list[Span]]) -> Iterator[Edit]:
        """Edits of the numbers that are too high."""
        for name in self._limits:
            for begin, end in members.get(name, ()):
                value = body[begin:end]
                lowered = self._lowered(name, value)
                if lowered is not value:
                    yield (begin, end), lowered

    def _lowered(self, name: bytes, value: bytes) -> bytes:
        """A value, or its limit where it is a number above that."""
        if name not in self._limits:
            return value
        limit, text = self._limits[name]
        return text if _is_above(value, limit) else value


class _Reader:
    """Finds members and the ends of values in one text."""

    __slots__ = ("_left", "_text")

    def __init__(self, text: bytes) -> None:
        self._text = text
        self._left = _MOST_STEPS

    def find(self, at: int, names: Collection[bytes]) -> _Found:
        """The values of these members of the object whose brace is at `at`, in order. Raises BadBody."""
        text = self._text
        inside = self._step(_INSIDE.match(text, at))
        at = inside.end()
        if inside[1]:
            return _Found({}, at - 1, is_empty=True)
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
                return _Found(members, last, is_empty=False)
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


def _is_above(value: bytes, limit: float) -> bool:
    """Whether it is a number above the limit; words, strings and negative numbers are not."""
    number = _NUMBER.fullmatch(value)
    if number is None:
        return False
    if number[1] or number[2]:
        return float(value) > limit
    return len(value) > _MOST_DIGITS or int(value) > limit


def _add_usage(body: bytes, members: Mapping[bytes, list[Span]], added: dict[bytes, bytes], edits: list[Edit]) -> bool:
    """Ask for the usage of a stream that would come without; False where nothing is to be done."""

    def value_of(name: bytes) -> bytes | None:
        return _last_value(body, members, name) or added.get(name)

    if value_of(b"stream") != b"true":
        return False
    options = _asking(value_of(b"stream_options"))
    if options is None:
        return False
    if b"stream_options" in members:
        edits.append((members[b"stream_options"][-1], options))
    else:
        added[b"stream_options"] = options
    return True


def _asking(options: bytes | None) -> bytes | None:
    """These `stream_options`, asking for the usage; None where they do, or are to stay as they are."""
    if options is None or options == b"null":
        return b"{%b}" % _USAGE
    if not options.startswith(b"{"):
        return None
    found = _Reader(options).find(0, _OPTIONS)
    if _last_value(options, found.members, b"continuous_usage_stats") not in _NOT_SET:
        return None
    asked = _last_value(options, found.members, b"include_usage")
    if asked not in _NOT_SET:
        return None
    if asked is not None:
        return _edited(options, [(found.members[b"include_usage"][-1], b"true")])
    return _edited(options, [((found.last, found.last), _USAGE if found.is_empty else b"," + _USAGE)])


def _last_value(text: bytes, members: Mapping[bytes, list[Span]], name: bytes) -> bytes | None:
    """The value that counts: parsers take the last one."""
    spans = members.get(name)
    return text[slice(*spans[-1])] if spans else None


def _edited(text: bytes, edits: Iterable[Edit]) -> bytes:
    """The text with these edits, which do not overlap; the same object where there are none."""
    parts: list[bytes] = []
    done = 0
    for (begin, end), new in sorted(edits):
        parts += (text[done:begin], new)
        done = end
    return b"".join((*parts, text[done:])) if parts else text


def _dumped(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _invalid() -> BadBody:
    return BadBody("The body is not valid JSON.")
