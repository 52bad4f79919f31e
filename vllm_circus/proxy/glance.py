"""The model of a JSON body that is here whole, found in one go where nothing is unusual about it. Pure.

Rules: what is found here is what `JsonModel` would find; whatever is not plain (escapes in keys or in the name, `model`
twice or none, other than a string, deep nesting) is left to it. One expression does the work, or compiled code byte by
byte: reading member by member in Python costs several times as much, and most requests are small.
"""

from __future__ import annotations

import re
from types import FunctionType
from typing import Final

from vllm_circus.proxy.bodymodel import DEEPEST, FLAT, MEMBER, string_end
from vllm_circus.proxy.skim import model_at_a_skim

#: Bytes of a body up to which one expression reads it fastest: beyond, searching for the ends of strings is.
SMALL: Final = 4096
#: Levels of arrays and objects that are looked through.
_LEVELS: Final = 6

_WS: Final = rb"[ \t\n\r]*+"
_STRING: Final = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'


def _nested(levels: int) -> bytes:
    """An array or object with so many levels; like JsonModel it counts brackets and leaves their kind to the engine."""
    inside = _STRING
    for _ in range(levels):
        nested = rb'[\[{][^"{}\[\]]*+(?:(?:' + inside + rb')[^"{}\[\]]*+)*+[\]}]'
        inside = _STRING + rb"|" + nested
    return nested


_VALUE: Final = rb"(?:" + _STRING + rb"|[-+.0-9A-Za-z]++|" + _nested(_LEVELS) + rb")"
_OTHER: Final = _WS + rb'"(?!model")[^"\\]{0,64}+"' + _WS + rb":" + _WS + _VALUE + _WS
_BODY: Final = re.compile(
    _WS + rb"\{(?:" + _OTHER + rb",)*+"
    + _WS + rb'"model"' + _WS + rb":" + _WS + rb'"([^"\\]{1,256}+)"' + _WS
    + rb"(?:," + _OTHER + rb")*+\}" + _WS,
    re.DOTALL,
)  # fmt: skip
_OPENING: Final = re.compile(_WS + rb"\{")
_AFTER: Final = re.compile(_WS + rb"([,}])")
_QUOTE: Final = 34
_OPEN: Final = b"{["
#: Compiled functions are none of Python's own.
IS_COMPILED: Final = not isinstance(model_at_a_skim, FunctionType)


def model_at_a_glance(data: bytes, at: int) -> str | None:
    """The model that the body from `at` on names, or None where a closer look is needed."""
    if IS_COMPILED:
        name = model_at_a_skim(data, at)
    elif len(data) - at > SMALL:
        name = _found(data, at)
    else:
        match = _BODY.fullmatch(data, at)
        name = match[1] if match is not None else None
    try:
        return name.decode() if name is not None else None
    except UnicodeDecodeError:
        return None


def _found(data: bytes, at: int) -> bytes | None:
    """The same for a large body: member by member, since its long strings are skipped fastest by a search."""
    match = _OPENING.match(data, at)
    name = b""
    more = match is not None
    while match is not None and more:
        match = MEMBER.match(data, match.end())
        if match is None:
            return None
        key, value, after = match.groups()
        if value is None:  # it ends after the first byte of a long or nested one
            end = _skipped(data, match.end())
            match = _AFTER.match(data, end) if end >= 0 and key != b"model" else None
            after = match[1] if match is not None else b""
        elif key == b"model":
            if name or len(value) <= 2 or value[0] != _QUOTE:
                return None
            name = value[1:-1]
        more = after == b","
    if match is None or not name or data[match.end() :].strip(b" \t\n\r"):
        return None
    return name


def _skipped(data: bytes, at: int) -> int:
    """Index after a string, array or object whose first byte is before `at`; -1 where it does not end."""
    if data[at - 1] == _QUOTE:
        return string_end(data, at)
    depth, size = 1, len(data)
    while depth:
        at = FLAT.match(data, at).end()  # type: ignore[union-attr]  # it matches nothing, too
        if at == size or depth > DEEPEST:
            return -1
        byte = data[at]
        at += 1
        if byte == _QUOTE:
            at = string_end(data, at)
            if at < 0:
                return -1
        else:
            depth += 1 if byte in _OPEN else -1
    return at
