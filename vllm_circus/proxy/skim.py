"""The same as a glance (see there), byte by byte: what compiled code does fastest. Pure.

Rules: interpreted, this costs ten times as much as the expression there does, compiled less than half of it; so the
glance takes whichever of the two is the faster, and the tests hold them against each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vllm_circus.proxy.bodymodel import DEEPEST, FLAT, string_end

if TYPE_CHECKING:
    from mypy_extensions import i64  # the compiler's name for an int that fits into a register

_LONGEST_KEY: Final = 64
_LONGEST_NAME: Final = 256
#: Bytes of a string, and of numbers in a row, after which a search or an expression goes on.
_SHORT: Final = 48

_TAB: Final = 9
_LF: Final = 10
_CR: Final = 13
_SPACE: Final = 32
_QUOTE: Final = 34
_PLUS: Final = 43
_COMMA: Final = 44
_MINUS: Final = 45
_DOT: Final = 46
_ZERO: Final = 48
_NINE: Final = 57
_COLON: Final = 58
_UPPER_A: Final = 65
_UPPER_Z: Final = 90
_OPEN_ARRAY: Final = 91
_BACKSLASH: Final = 92
_CLOSE_ARRAY: Final = 93
_LOWER_A: Final = 97
_LOWER_Z: Final = 122
_OPEN: Final = 123
_CLOSE: Final = 125


def model_at_a_skim(data: bytes, begin: int) -> bytes | None:
    """The name of the model in the body from `begin` on, or None where a closer look is needed."""
    size: i64 = len(data)
    at: i64 = _blank(data, begin, size)
    if at == size or data[at] != _OPEN:
        return None
    name = b""
    more = True
    while more:
        key: i64 = _blank(data, at + 1, size)
        end: i64 = _plain_end(data, key, size, _LONGEST_KEY)
        at = _value_at(data, end + 1, size) if end >= 0 else -1
        if at < 0:
            return None
        if end - key == len("model") + 1 and data[key + 1 : end] == b"model":
            end = _plain_end(data, at, size, _LONGEST_NAME)
            if name or end <= at + 1:
                return None
            name = data[at + 1 : end]
            at = end + 1
        else:
            at = _value_end(data, at, size)
        at = _blank(data, at, size) if at >= 0 else size
        if at == size:
            return None
        more = data[at] == _COMMA
    return name if name and data[at] == _CLOSE and _blank(data, at + 1, size) == size else None


def _blank(data: bytes, at: i64, size: i64) -> i64:
    """Index of what follows the blanks."""
    while at < size and data[at] in (_SPACE, _LF, _CR, _TAB):
        at += 1
    return at


def _plain_end(data: bytes, at: i64, size: i64, most: i64) -> i64:
    """Index of the quote that ends a string without escapes, of at most so many bytes, that begins at `at`; or -1."""
    if at >= size or data[at] != _QUOTE:
        return -1
    last: i64 = min(size, at + most + 2)
    at += 1
    while at < last:
        if data[at] == _QUOTE:
            return at
        if data[at] == _BACKSLASH:
            return -1
        at += 1
    return -1


def _value_at(data: bytes, at: i64, size: i64) -> i64:
    """Index of what follows a colon and blanks; -1 where there is none."""
    at = _blank(data, at, size)
    if at == size or data[at] != _COLON:
        return -1
    at = _blank(data, at + 1, size)
    return at if at < size else -1


def _value_end(data: bytes, at: i64, size: i64) -> i64:
    """Index after the value that begins there; -1 where it does not end."""
    byte: i64 = data[at]
    if byte == _QUOTE:
        return _string_end(data, at + 1, size)
    if byte in (_OPEN, _OPEN_ARRAY):
        return _nested_end(data, at + 1, size)
    begin: i64 = at
    while at < size and _is_scalar(data[at]):
        at += 1
    return at if at > begin else -1


def _is_scalar(byte: i64) -> bool:
    """Whether numbers, true, false and null are made of it."""
    if byte <= _NINE:
        return byte >= _ZERO or byte in (_MINUS, _DOT, _PLUS)
    return _LOWER_A <= byte <= _LOWER_Z or _UPPER_A <= byte <= _UPPER_Z


def _string_end(data: bytes, at: i64, size: i64) -> i64:
    """Index after the quote that ends the string whose inside begins at `at`; -1 where it has none."""
    last: i64 = min(size, at + _SHORT)
    while at < last:
        if data[at] == _QUOTE:
            return at + 1
        at += 2 if data[at] == _BACKSLASH else 1
    return string_end(data, at) if at < size else -1


def _nested_end(data: bytes, at: i64, size: i64) -> i64:
    """Index after the array or object whose inside begins at `at`; -1 where it does not end, or is very deep."""
    depth: i64 = 1
    flat: i64 = 0
    while 0 < depth <= DEEPEST and 0 <= at < size:
        byte: i64 = data[at]
        at += 1
        flat += 1
        if byte == _QUOTE:
            at = _string_end(data, at, size)
            flat = 0
        elif byte in (_OPEN, _OPEN_ARRAY):
            depth += 1
            flat = 0
        elif byte in (_CLOSE, _CLOSE_ARRAY):
            depth -= 1
            flat = 0
        elif flat > _SHORT:
            at = FLAT.match(data, at).end()  # type: ignore[union-attr]  # it matches nothing, too
    return -1 if depth else at
