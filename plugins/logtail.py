"""An engine's log, read while it loads (for its phase) and when it died (for the cause).

Files are written by circusd in the format of `vllm_circus.logline`, rotated by it, and may be gone: then there is
nothing to tell, which is no error.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from vllm_circus import logline
from vllm_circus.lifecycle.phases import read_phase
from vllm_circus.logline import LogLine

#: Bytes from the end of a log that are worth looking at; a read is never longer. vLLM's processes each tell of the
#: same end with long tracebacks, and the cause stands before all of them.
_WINDOW = 256 << 10
_LAST_MINUTE = timedelta(minutes=1)


class LogTail:
    """One model's log, from `mark` on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._begin = self._next = self._size()
        self._partial = b""

    def mark(self) -> None:
        """A new process writes from here on."""
        self._begin = self._next = self._size()
        self._partial = b""

    def phase(self) -> str | None:
        """The last phase told of since this was asked last, or None."""
        seen = None
        for text in self._new_lines():
            seen = read_phase(text) or seen
        return seen

    def last_lines(self) -> list[str]:
        """What this process wrote in the last minute before its last line, without times and control characters.

        What is older, a request that failed hours ago for instance, has nothing to do with its end.
        """
        size = self._size()
        begin = self._begin if self._begin <= size else 0  # rotated meanwhile
        lines = _lines(self._read(max(begin, size - _WINDOW)).split(b"\n"))
        return [line.text for line in lines if lines[-1].at - line.at <= _LAST_MINUTE]

    def _new_lines(self) -> list[str]:
        size = self._size()
        if size < self._next:  # rotated meanwhile
            self._next, self._partial = 0, b""
        if size - self._next > _WINDOW:
            self._next, self._partial = size - _WINDOW, b""
        data = self._read(self._next)
        self._next += len(data)
        *whole, self._partial = (self._partial + data).split(b"\n")
        self._partial = self._partial[-_WINDOW:]
        return [line.text for line in _lines(whole)]

    def _size(self) -> int:
        with suppress(OSError):
            return self._path.stat().st_size
        return 0

    def _read(self, begin: int) -> bytes:
        with suppress(OSError), self._path.open("rb") as file:
            file.seek(begin)
            return file.read(_WINDOW)
        return b""


def _lines(raw: list[bytes]) -> list[LogLine]:
    decoded = (logline.decode(line.decode(errors="replace")) for line in raw)
    return [line for line in decoded if line is not None]
