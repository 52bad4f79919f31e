"""Header fields, whoever sent them: what is well-formed, what passes, what is read. Pure.

Rules: the grammar is that of RFC 9112, section 5, and nothing wider. A field's role is looked up by its lower-case
name; lines that pass are the sender's own bytes. What is hop-by-hop ends here: the fields of RFC 9110, section 7.6.1,
and those that `Connection` names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mypy_extensions import i64  # the compiler's name for an int that fits into a register

TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]"
VALUE: Final = rb"[\t\x20-\x7e\x80-\xff]*+"
#: All field lines of a head, as one group, and the empty line after them.
LINES: Final = rb"((?:" + TOKEN + rb"++:" + VALUE + rb"\r\n)*+)\r\n"

#: What a field is to us, as bits: its line goes on, we look at its value.
PASSES: Final = 1
READS: Final = 2
#: Field lines up to this length are worth remembering, and so are whole heads.
USUAL_LINE: Final = 256
USUAL_HEAD: Final = 2048

_HOP_BY_HOP: Final = b"keep-alive proxy-connection proxy-authenticate proxy-authorization te".split()
_LENGTH_DIGITS: Final = 18
_LF: Final = 10
_CR: Final = 13
_ZERO: Final = 48
_NINE: Final = 57
_UPPER_C: Final = 67
_LOWER_C: Final = 99
#: Bytes of `Content-Length: ` after its first.
_NAME_REST: Final = 15


def make_roles(*, dropped: bytes = b"", read: bytes, noted: bytes) -> Mapping[bytes, int]:
    """Roles by lower-case name: fields that end here, that we read and write anew, that we read and pass."""
    ends = dict.fromkeys((*_HOP_BY_HOP, *dropped.split()), 0)
    return ends | dict.fromkeys(read.split(), READS) | dict.fromkeys(noted.split(), READS | PASSES)


def split_line(line: bytes) -> tuple[bytes, bytes]:
    """Lower-case name and value of a well-formed line."""
    name, _, value = line.partition(b":")
    return name.lower(), value.strip(b" \t")


def cut_length(raw: bytes) -> tuple[bytes, bytes, int | None]:
    """What stands before and after the digits of a head's Content-Length, and that length.

    Heads differ in little but this number: around it they are the same ones over and over. The whole head, nothing and
    None where it has none or an unusual one. A second Content-Length stays where it is.
    """
    at = raw.find(b"ontent-length: ")
    if at < 0:
        at = raw.find(b"ontent-Length: ")
    if at < 3 or (raw[at - 1] != _LOWER_C and raw[at - 1] != _UPPER_C) or raw[at - 2] != _LF or raw[at - 3] != _CR:
        return raw, b"", None
    begin = at + _NAME_REST
    length, end = number_at(raw, begin, min(len(raw) - 2, begin + _LENGTH_DIGITS))
    if end == begin or raw[end] != _CR or raw[end + 1] != _LF:
        return raw, b"", None
    return raw[:begin], raw[end:], length


def without_length(before: bytes, after: bytes) -> bytes:
    """The head that `cut_length` cut in two, less the whole line of its Content-Length."""
    return before[: -_NAME_REST - 1] + after[2:] if after else before


def read_again(data: bytes, before: bytes, after: bytes) -> tuple[i64, i64]:
    """Where the head ends with which the data begins, and its Content-Length, if but for that it is one read before.

    `before` and `after` are of `cut_length`; the end is -1 where it is another head. To look for an end, for the length
    and for what was made of such a head costs ten times as much.
    """
    if not data.startswith(before):
        return -1, 0
    size: i64 = len(data)
    begin: i64 = len(before)
    length, digits = number_at(data, begin, min(size, begin + _LENGTH_DIGITS))
    end: i64 = digits + len(after)
    if digits == begin or not after or data[digits:end] != after:
        return -1, 0
    return end, length


def number_at(data: bytes, at: i64, last: i64) -> tuple[i64, i64]:
    """The number whose digits begin at `at` and end before `last`, and the index after them; `at` where there are none.

    The caller sees to it that there are at most 18. Compiled, this costs half of what pieces, `isdigit` and `int` do;
    interpreted a little more than they.
    """
    number: i64 = 0
    while at < last and _ZERO <= data[at] <= _NINE:
        number = 10 * number + data[at] - _ZERO
        at += 1
    return number, at


def read_length(value: bytes) -> int | None:
    """Content-Length by its value, or None where it is no number of at most 18 digits."""
    return int(value) if value.isdigit() and len(value) <= _LENGTH_DIGITS else None


def read_connection(value: bytes | None, minor: int) -> tuple[bool, bool, set[bytes]]:
    """Whether the connection is to stay, whether it is to be upgraded, and the fields that end here with it."""
    if value is None:
        return minor == 1, False, set()
    options = {option.strip(b" \t") for option in value.lower().split(b",")}
    keep_alive = b"close" not in options and (minor == 1 or b"keep-alive" in options)
    return keep_alive, b"upgrade" in options and minor == 1, options - {b"close", b"keep-alive", b"upgrade", b""}


def drop_named(lines: Iterable[bytes], names: set[bytes]) -> list[bytes]:
    """Lines less the fields of those (lower-case) names."""
    return [line for line in lines if line[: line.find(b":")].lower() not in names]


def find_field(lines: bytes, name: bytes) -> bytes | None:
    """The value of the first field of that lower-case name among lines that end with CRLF each."""
    found = re.search(rb"(?i)(?:^|\r\n)" + re.escape(name) + rb":[ \t]*([^\r\n]*)", lines)
    return found[1].rstrip(b" \t") if found is not None else None
