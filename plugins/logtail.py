"""An engine's log, read while it loads (for its phase) and when it died (for the cause).

Files are written by circusd in the format of `vllm_circus.logline`, rotated by it, and may be gone: then there is
nothing to tell, which is no error.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from vllm_circus import logline
from vllm_circus.lifecycle.phases import read_phase

#: Bytes from the end of a log that are worth looking at; a read is never longer.
_WINDOW = 64 << 10


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
        """What this process wrote last, without times and control characters."""
        size = self._size()
        begin = self._begin if self._begin <= size else 0  # rotated meanwhile
        return _texts(self._read(max(begin, size - _WINDOW)).split(b"\n"))

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
        return _texts(whole)

    def _size(self) -> int:
        with suppress(OSError):
            return self._path.stat().st_size
        return 0

    def _read(self, begin: int) -> bytes:
        with suppress(OSError), self._path.open("rb") as file:
            file.seek(begin)
            return file.read(_WINDOW)
        return b""


def _texts(lines: list[bytes]) -> list[str]:
    decoded = (logline.decode(line.decode(errors="replace")) for line in lines)
    return [line.text for line in decoded if line is not None]
