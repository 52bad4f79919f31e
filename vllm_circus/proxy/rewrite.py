"""Edits of a request's JSON object: members added, numbers lowered, the usage of a stream asked for. Pure.

Rules: only what was configured is touched, at the top level; every other byte stays as it came, and a body in which
nothing changes is handed on as the same object. Members are found as members.py has it; of a name that comes several
times every value is lowered, so it does not matter which one counts. What is no number stays for the engine to refuse.

Usage is asked for only where the engine would stream without it: where `stream` is true and `stream_options` is
missing, null, or an object that does not ask. One that has `continuous_usage_stats` set stays as it is, since with
the usage every event of its stream would change.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import inf

from vllm_circus.config.models import RequestRules
from vllm_circus.proxy.members import Edit, Span, edited, find_inner, find_members

_NUMBER = re.compile(rb"(?:0|[1-9][0-9]*+)(\.[0-9]++)?+([eE][-+]?[0-9]++)?+")
#: An integer of more digits than this is above every limit: reading it would take long.
_MOST_DIGITS = 400

_USAGE = b'"include_usage":true'
_OPTIONS = frozenset((b"include_usage", b"continuous_usage_stats"))
_NOT_SET = frozenset((None, b"false", b"null"))


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
        found = find_members(body, self._names)
        edits = list(self._lower(body, found.members))
        added = {name: text for name, text in self._defaults.items() if name not in found.members}
        adds_usage = self._include_usage and _add_usage(body, found.members, added, edits)
        if added:
            text = b",".join(b'"%b":%b' % member for member in added.items())
            edits.append(((found.last, found.last), text if found.is_empty else b"," + text))
        return Rewritten(edited(body, edits), adds_usage)

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
    found = find_inner(options, _OPTIONS)
    if _last_value(options, found.members, b"continuous_usage_stats") not in _NOT_SET:
        return None
    asked = _last_value(options, found.members, b"include_usage")
    if asked not in _NOT_SET:
        return None
    if asked is not None:
        return edited(options, [(found.members[b"include_usage"][-1], b"true")])
    return edited(options, [((found.last, found.last), _USAGE if found.is_empty else b"," + _USAGE)])


def _last_value(text: bytes, members: Mapping[bytes, list[Span]], name: bytes) -> bytes | None:
    """The value that counts: parsers take the last one."""
    spans = members.get(name)
    return text[slice(*spans[-1])] if spans else None


def _dumped(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
