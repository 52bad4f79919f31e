"""A log file that is rotated by size, survives its own deletion, and never raises.

Several writers may share a file without knowing of each other (a model's standard output and its standard error): each
line goes out in one append, and each write first looks whether the name still leads to the file that is open, so a
rotation by one, or a deletion by somebody else, is seen by all. The look costs two microseconds.

A full disk loses lines, not the program: they are counted, and the file says how many as soon as it takes lines again.
What it takes of a line is taken out again: a line is whole or missing.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from vllm_circus.logline import Channel, encode

#: Readable by the group: whoever may read the machine's logs may read these.
_MODE = 0o640


def utc_now() -> datetime:
    """The time that goes into log lines."""
    return datetime.now(UTC)


class LogFile:
    """An append-only file of `logline` lines.

    `max_bytes` is the size above which it is rotated (0: never); `backups` how many old files are kept, as `NAME.1`
    (the youngest) and so on.
    """

    def __init__(
        self, path: Path, *, max_bytes: int = 0, backups: int = 0, now: Callable[[], datetime] = utc_now
    ) -> None:
        self.path = path
        self.lost = 0
        self._max_bytes = max_bytes
        self._backups = backups
        self._now = now
        self._handle: int | None = None
        self._identity = (0, 0)
        self._torn = False
        self._reason = ""

    def write(self, channel: Channel, *texts: str) -> None:
        """Append lines, stamped with the present time. Never raises OSError: see `lost`."""
        now = self._now()
        lines = [encode(now, channel, text).encode(errors="replace") for text in texts]
        kept, reason = 0, os.strerror(errno.ENOSPC)
        try:
            kept = self._append(lines)
        except OSError as error:
            reason = error.strerror or str(error)
        if kept < len(lines):
            self.lost += len(lines) - kept
            self._reason = reason

    def close(self) -> None:
        """Close the file; the next write opens it again."""
        if self._handle is not None:
            with suppress(OSError):  # a full network disk may say so here, and nothing can be done about it
                os.close(self._handle)
            self._handle = None

    def _append(self, lines: list[bytes]) -> int:
        """How many of the lines are whole in the file: a disk may take some of them and then be full."""
        note = self._note()
        data = b"".join([note, *lines])
        handle = self._current(len(data))
        if self._torn:
            data = b"\n" + data
        written = os.write(handle, data)
        if written == len(data):
            self._torn, self.lost = False, 0
            return len(lines)
        if not written:
            return 0
        whole = data[:written].count(b"\n") - self._torn
        self._cut(handle, written - (data[:written].rfind(b"\n") + 1))
        if note and whole > 0:
            self.lost = 0
            whole -= 1
        return max(0, whole)

    def _cut(self, handle: int, size: int) -> None:
        """Take the beginning of a line out again, so that nobody reads half of one. Raises OSError."""
        self._torn = True
        end = os.lseek(handle, 0, os.SEEK_CUR)
        os.ftruncate(handle, end - size)
        self._torn = False

    def _note(self) -> bytes:
        """What is said of lines that were lost; nothing where none were."""
        if not self.lost:
            return b""
        return encode(self._now(), "E", f"vllm-circus: {self.lost} lines were lost here: {self._reason}").encode()

    def _current(self, size: int) -> int:
        """A descriptor of the file of our name, opened or rotated where that is due."""
        try:
            about = self.path.stat()
        except FileNotFoundError:
            return self._open()
        if self._max_bytes and about.st_size and about.st_size + size > self._max_bytes:
            self._rotate()
            return self._open()
        if self._handle is None or (about.st_dev, about.st_ino) != self._identity:
            return self._open()
        return self._handle

    def _open(self) -> int:
        self.close()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, _MODE)
        about = os.fstat(handle)
        self._handle, self._identity = handle, (about.st_dev, about.st_ino)
        return handle

    def _rotate(self) -> None:
        """Every old file moves up by one, by renaming alone: no reader ever meets half a file."""
        if not self._backups:
            self.path.unlink(missing_ok=True)
            return
        for number in range(self._backups - 1, 0, -1):
            with suppress(FileNotFoundError):
                self._backup(number).replace(self._backup(number + 1))
        with suppress(FileNotFoundError):
            self.path.replace(self._backup(1))

    def _backup(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")
