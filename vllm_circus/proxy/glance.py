"""The model of a JSON body that is here whole, found in one go where nothing is unusual about it. Pure.

Rules: what is found here is what `JsonModel` would find; whatever is not plain (escapes in keys or in the name, `model`
twice or none, other than a string, deep nesting) is left to it. One expression does the work: reading member by member
in Python costs several times as much, and most requests are small.
"""

from __future__ import annotations

import re

from vllm_circus.proxy.bodymodel import JsonModel
from vllm_circus.proxy.errors import Refused

#: Bytes of a body up to which one expression reads it fastest: beyond, searching for the ends of strings is.
SMALL = 4096
#: Levels of arrays and objects that are looked through.
_LEVELS = 6

_WS = rb"[ \t\n\r]*+"
_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'


def _nested(levels: int) -> bytes:
    """An array or object with so many levels; like JsonModel it counts brackets and leaves their kind to the engine."""
    inside = _STRING
    for _ in range(levels):
        nested = rb'[\[{][^"{}\[\]]*+(?:(?:' + inside + rb')[^"{}\[\]]*+)*+[\]}]'
        inside = _STRING + rb"|" + nested
    return nested


_VALUE = rb"(?:" + _STRING + rb"|[-+.0-9A-Za-z]++|" + _nested(_LEVELS) + rb")"
_OTHER = _WS + rb'"(?!model")[^"\\]{0,64}+"' + _WS + rb":" + _WS + _VALUE + _WS
_BODY = re.compile(
    _WS + rb"\{(?:" + _OTHER + rb",)*+"
    + _WS + rb'"model"' + _WS + rb":" + _WS + rb'"([^"\\]{1,256}+)"' + _WS
    + rb"(?:," + _OTHER + rb")*+\}" + _WS,
    re.DOTALL,
)  # fmt: skip


def model_at_a_glance(data: bytes, at: int) -> str | None:
    """The model that the body from `at` on names, or None where a closer look is needed."""
    if len(data) - at > SMALL:
        return _found(data, at)
    match = _BODY.fullmatch(data, at)
    if match is None:
        return None
    try:
        return match[1].decode()
    except UnicodeDecodeError:
        return None


def _found(data: bytes, at: int) -> str | None:
    finder = JsonModel()
    try:
        finder.feed(data, at)
        finder.finish()
    except Refused:
        return None
    return None if finder.conflict else finder.name
