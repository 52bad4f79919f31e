"""The usage of a stream whose client did not ask for it: read, and taken out again. Pure.

Rules: fed with the stream's bytes, chunk framing left out, in any pieces, it gives the bytes that go on. Of these
exactly one kind of event is missing, blank line included: one that consists of data, whose JSON has an empty `choices`
and an object as `usage` (chat and completions alike). Everything else passes as it came: events with choices whatever
else they carry, `[DONE]`, errors, comments, blank lines, every line end. A piece that needs no look inside is handed on
as the same object. An event whose end has not come waits for it; one longer than `LONGEST_EVENT` is not that event and
passes as it comes, so memory is bounded.

What vLLM's other events say (0.32, read in its source): without `continuous_usage_stats` they have no `usage` at all,
asked for or not, so a client sees what it would have seen, with one exception: the `system_fingerprint`, which stands
in a stream's last event, is in the one taken out, and the event with the `finish_reason` has gone on without it. Other
servers, earlier versions of vLLM among them, write `"usage":null` into each event; some do so for every client, and
which do cannot be told from the stream. So it stays: to a client null says the same as nothing.
"""

from __future__ import annotations

import json
import re

#: Bytes of one event that wait for its end; the one that is taken out has a few hundred.
LONGEST_EVENT = 64 << 10

_USAGE = b'"usage"'
_NO_CHOICES = re.compile(rb'"choices"[ \t\r\n]*+:[ \t\r\n]*+\[[ \t\r\n]*+\]')
#: The end of an event: a line end (LF, CRLF or CR) and one more, from the first one's last byte.
_BLANK_LINE = re.compile(rb"\n(?:\r\n?|\n)|\r\r\n?")
_WHOLE = (b"\n\n", b"\r\n\r\n")
_CR = 13


class UsageFilter:
    """Takes the event of the usage out of one stream.

    Attributes:
        found: it has come.
        prompt_tokens, completion_tokens: what it said; 0 where it did not say.
    """

    __slots__ = ("_held", "_passing", "completion_tokens", "found", "prompt_tokens")

    def __init__(self) -> None:
        self.found = False
        self.prompt_tokens = self.completion_tokens = 0
        self._held = bytearray()
        self._passing = False  # in an event that is too long to wait for

    def feed(self, data: bytes) -> bytes:
        """The next bytes of the stream; returns those that go on, perhaps none."""
        if not self._held and not self._passing and data.endswith(_WHOLE) and _USAGE not in data:
            return data
        searched = max(0, len(self._held) - 2)
        self._held += data
        return self._take(searched, is_end=False)

    def end(self) -> bytes:
        """The stream is over, or cut: what waited for its end."""
        rest = self._take(0, is_end=True) + bytes(self._held)
        self._held.clear()
        return rest

    def _take(self, searched: int, *, is_end: bool) -> bytes:
        """The events whose end is at hand; `searched` bytes hold none."""
        held, out, at = self._held, [], 0
        while (blank := _BLANK_LINE.search(held, searched)) is not None:
            end = blank.end()
            if end == len(held) and held[-1] == _CR and not is_end:  # a LF that belongs to it may follow
                break
            event = bytes(held[at:end])
            out.append(event if self._passing else self._passed(event))
            self._passing = False
            at = searched = end
        del held[:at]
        if self._passing or len(held) > LONGEST_EVENT:
            self._passing = True
            kept = len(held) - len(held.rstrip(b"\r\n"))  # it may be the beginning of a blank line
            size = len(held) - min(kept, 2)
            out.append(bytes(held[:size]))
            del held[:size]
        return b"".join(out)

    def _passed(self, event: bytes) -> bytes:
        """What goes on of a whole event: all of it, or the comments within and blank lines before."""
        if _USAGE not in event or not _NO_CHOICES.search(event):
            return event
        lines = [line for line in event.splitlines(keepends=True) if line.strip(b"\r\n")]
        comments = [line for line in lines if line.startswith(b":")]
        data = [line[5:] for line in lines if line.startswith(b"data:")]
        if len(comments) + len(data) < len(lines):
            return event
        usage = _only_usage(b"".join(data))
        if usage is None:
            return event
        self.found = True
        self.prompt_tokens = _count(usage, "prompt_tokens")
        self.completion_tokens = _count(usage, "completion_tokens")
        blank = event[: len(event) - len(event.lstrip(b"\r\n"))]  # line ends before it are not its own
        return blank + b"".join(comments)


def as_chunk(data: bytes) -> bytes:
    """The bytes framed as one chunk (RFC 9112, section 7.1); none give none, since an empty chunk ends the body."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


def _only_usage(data: bytes) -> dict[str, object] | None:
    """The `usage` of an event's data that has nothing else to tell, or None."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict) or document.get("choices") != []:
        return None
    usage = document.get("usage")
    return usage if isinstance(usage, dict) else None


def _count(usage: dict[str, object], name: str) -> int:
    value = usage.get(name)
    return value if type(value) is int and 0 <= value < 10**12 else 0
