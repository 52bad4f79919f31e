"""The one format of our log files, shared by those who write them and those who read them.

A line is `2026-11-23T14:31:53.123+00:00 O text`: the moment circusd read it (UTC, milliseconds), `O` for standard
output or `E` for standard error, and the text as the process wrote it, less its line end. Control characters other
than tab are written as `\\xNN`, so that a file shown raw harms no terminal.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

Channel = Literal["O", "E"]

_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[0-Z\\^-~])")
_STAMP_LENGTH = len("2026-11-23T14:31:53.123+00:00")


@dataclass(frozen=True)
class LogLine:
    """One line of a log file."""

    at: datetime
    channel: Channel
    text: str


def clean(text: str) -> str:
    """Text without terminal control: colour codes dropped, every other control character spelled as `\\xNN`."""
    if text.isprintable():  # by far the most lines
        return text
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", _ANSI.sub("", text))


def encode(at: datetime, channel: Channel, text: str) -> str:
    """The line as it stands in the file, with its line end. `at` must know its time zone."""
    stamp = at.astimezone(UTC).isoformat(timespec="milliseconds")
    return f"{stamp} {channel} {clean(text)}\n"


def decode(line: str) -> LogLine | None:
    """The line read back, or None where it is not one of ours (a file that something else wrote to)."""
    stamp, channel, text = line[:_STAMP_LENGTH], line[_STAMP_LENGTH + 1 : _STAMP_LENGTH + 2], line[_STAMP_LENGTH + 3 :]
    if channel not in {"O", "E"}:
        return None
    try:
        at = datetime.fromisoformat(stamp)
    except ValueError:
        return None
    return LogLine(at, "O" if channel == "O" else "E", text.rstrip("\n")) if at.tzinfo else None
