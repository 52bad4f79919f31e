"""What circusd does with the output of our processes: whole lines, stamped, into one file for each watcher.

circus hands over whatever a pipe held, up to 1,024 bytes. Here they become lines: bytes are decoded across the borders
of chunks, a line is written when it ends, when it is too long, or when its process has been silent for a second.

A carriage return ends a line too, since that is how progress bars draw. Such a line is soon drawn over, so only the
last one in a second is kept.
"""

from __future__ import annotations

import asyncio
import codecs
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol, TypedDict

from vllm_circus.logline import Channel
from vllm_circus.supervise.logfile import LogFile, utc_now

#: Characters of a line at most; more is written as several lines, each but the last with the mark at its end.
LONGEST = 65536
CUT = " …[cut]"
#: Seconds: how long an unfinished line waits for its end, and how often a progress bar is written.
PATIENCE = 1.0


class Chunk(TypedDict):
    """What circus's redirector hands over."""

    data: bytes
    pid: int
    name: str


class Timer(Protocol):
    """What `later` returns."""

    def cancel(self) -> None:
        """Do not call after all."""


@dataclass
class _Pending:
    """What one process has written and we have not, and when it last wrote."""

    decoder: codecs.IncrementalDecoder = field(default_factory=lambda: codecs.getincrementaldecoder("utf-8")("replace"))
    text: str = ""
    heard_at: float = 0.0
    progress_at: float = -PATIENCE


class LogStream:
    """A circus stream class; circus makes one for standard output and one for standard error of each watcher.

    Options, all strings in the ini: `filename`, `channel` (O or E), `max_bytes`, `backups` as for `LogFile`.
    """

    def __init__(
        self,
        *,
        filename: str,
        channel: str = "O",
        max_bytes: str | int = 0,
        backups: str | int = 0,
        now: Callable[[], datetime] = utc_now,
        clock: Callable[[], float] = time.monotonic,
        later: Callable[[float, Callable[[], None]], Timer] | None = None,
    ) -> None:
        self._file = LogFile(Path(filename), max_bytes=int(max_bytes), backups=int(backups), now=now)
        self._channel: Channel = "E" if channel == "E" else "O"
        self._clock = clock
        self._later = later
        self._timer: Timer | None = None
        self._pending: dict[int, _Pending] = {}

    def __call__(self, chunk: Chunk) -> None:
        """Take what a process wrote. Never raises for what is in it, nor for a full disk."""
        pending = self._pending.setdefault(chunk["pid"], _Pending())
        pending.heard_at = self._clock()
        pending.text += pending.decoder.decode(chunk["data"])
        self._take_lines(pending)
        self._wait()

    def open(self) -> None:
        """circus calls this when the watcher starts; the file is opened by its first line."""

    def close(self) -> None:
        """Write what is unfinished and close the file; a later line opens it again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for pid in list(self._pending):
            self._finish(pid)
        self._file.close()

    def _wait(self) -> None:
        if self._timer is None and self._pending:
            self._timer = (self._later or _call_later)(PATIENCE, self._tick)

    def _tick(self) -> None:
        self._timer = None
        silent_since = self._clock() - PATIENCE
        for pid in [pid for pid, pending in self._pending.items() if pending.heard_at <= silent_since]:
            self._finish(pid)
        self._wait()

    def _finish(self, pid: int) -> None:
        """Write what is unfinished of a process, and forget it."""
        pending = self._pending.pop(pid)
        rest = (pending.text + pending.decoder.decode(b"", final=True)).rstrip("\r")
        if rest:
            self._file.write(self._channel, *_pieces(rest))

    def _take_lines(self, pending: _Pending) -> None:
        """Write, in one go, every line that has ended; keep what has not."""
        *lines, rest = pending.text.split("\n")
        ready: list[str] = []
        for line in lines:
            *drawn, last = line.rstrip("\r").split("\r")
            ready += _progress(pending, drawn)
            ready += _pieces(last)
        *drawn, rest = rest.split("\r")
        if drawn and not rest:
            rest = drawn.pop() + "\r"  # perhaps the first half of a line end
        ready += _progress(pending, drawn)
        *whole, pending.text = _pieces(rest)
        ready += whole
        if ready:
            self._file.write(self._channel, *ready)


def _progress(pending: _Pending, drawn: list[str]) -> list[str]:
    """Of lines that were drawn over: the last one, unless one was written a moment ago."""
    if not any(drawn) or pending.heard_at - pending.progress_at < PATIENCE:
        return []
    pending.progress_at = pending.heard_at
    return [text for text in drawn if text][-1:]


def _pieces(text: str) -> list[str]:
    """`text` in pieces of the greatest length, each but the last marked as cut."""
    if len(text) <= LONGEST:
        return [text]
    starts = range(0, len(text), LONGEST)
    return [text[start : start + LONGEST] + (CUT if start + LONGEST < len(text) else "") for start in starts]


def _call_later(delay: float, callback: Callable[[], None]) -> Timer:
    return asyncio.get_running_loop().call_later(delay, callback)
