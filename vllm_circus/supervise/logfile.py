"""A log file that is rotated by size, survives its own deletion, and never raises.

Several writers may share a file without knowing of each other (a model's standard output and its standard error): each
line goes out in one append, and each write first looks whether the name still leads to the file that is open, so a
rotation by one, or a deletion by somebody else, is seen by all. The look costs two microseconds.

A full disk loses lines, not the program: they are counted, and the file says how many as soon as it takes lines again.
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
        try:
            self._append("".join([encode(now, channel, text) for text in texts]))
        except OSError as error:
            self.lost += len(texts)
            self._reason = error.strerror or str(error)

    def close(self) -> None:
        """Close the file; the next write opens it again."""
        if self._handle is not None:
            with suppress(OSError):  # a full network disk may say so here, and nothing can be done about it
                os.close(self._handle)
            self._handle = None

    def _append(self, lines: str) -> None:
        data = lines.encode(errors="replace")
        if self.lost:
            note = encode(self._now(), "E", f"vllm-circus: {self.lost} lines were lost here: {self._reason}")
            data = note.encode() + data
        handle = self._current(len(data))
        if self._torn:
            data = b"\n" + data
        written = os.write(handle, data)
        if written < len(data):
            self._torn = True
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._torn = False
        self.lost = 0

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
