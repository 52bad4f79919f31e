"""Reading log files: the last lines from the end, all lines from the beginning, and new lines as they come.

A part's log is `NAME.log`, with `NAME.log.1` (the one before), `NAME.log.2` and so on behind it. Rotation renames;
whoever reads holds the file open, so that no line is lost or read twice. A file may come later, be deleted or be
emptied at any time.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from vllm_circus.logline import decode
from vllm_circus.view.logs import BEGINNING, Entry, Wanted, merge, read_entries

_BLOCK = 1 << 16
_TURN = 1 << 22  # bytes that one poll takes from one file at most: a flood leaves room for the others


@dataclass(frozen=True)
class Mark:
    """A place in a log: behind the last whole line of the file with this inode."""

    inode: int
    offset: int


def files_of(log: Path) -> list[Path]:
    """The files of a log that exist, newest first."""
    prefix = f"{log.name}."
    with suppress(FileNotFoundError):
        numbers = [name.removeprefix(prefix) for name in os.listdir(log.parent) if name.startswith(prefix)]  # noqa: PTH208 - names
        rotated = [log.with_name(prefix + number) for number in sorted(filter(str.isdecimal, numbers), key=int)]
        return [*([log] if log.exists() else []), *rotated]
    return []


def mark_end(log: Path) -> Mark | None:
    """Where a follower goes on after everything that is there now was read; None where there is no file yet."""
    try:
        with log.open("rb") as file:
            status = os.fstat(file.fileno())
            return Mark(status.st_ino, _after_last_line(file, status.st_size))
    except FileNotFoundError:
        return None


def last_entries(part: str, log: Path, number: int, wanted: Wanted, mark: Mark | None) -> list[Entry]:
    """The last `number` wanted lines up to `mark`, oldest first. Reads no more of the files than it has to."""
    found: list[Entry] = []
    with ExitStack() as stack:
        for entry in _backwards(part, _up_to(mark, _open_all(log, stack))):
            if wanted.too_old(entry) or len(found) == number:
                break
            if wanted.matches(entry):
                found.append(entry)
    return found[::-1]


def all_entries(part: str, log: Path, wanted: Wanted, mark: Mark | None) -> Iterator[Entry]:
    """Every wanted line up to `mark`, oldest first, read as it is asked for."""
    with ExitStack() as stack:
        files = reversed(_up_to(mark, _open_all(log, stack)))
        lines = chain.from_iterable(_lines(file, end) for file, end in files)
        yield from filter(wanted.matches, read_entries(part, lines))


class Follower:
    """New lines of one part's log, across rotation, from `mark` on; from the first line where there was no file."""

    def __init__(self, part: str, log: Path, mark: Mark | None) -> None:
        self._part = part
        self._log = log
        self._mark = mark
        self._file: BinaryIO | None = None
        self._rest = b""
        self._before: datetime = BEGINNING

    def poll(self) -> list[Entry]:
        """What was written since the last time: whole lines, of one file. Ask again while something comes."""
        if self._file is None:
            self._file = self._open_first()
        if self._file is None:
            return []
        lines = self._read(self._file) or self._turn_page(self._file)
        entries = list(read_entries(self._part, lines, self._before))
        self._before = entries[-1].at if entries else self._before
        return entries

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open_first(self) -> BinaryIO | None:
        with ExitStack() as stack:
            files = _open_all(self._log, stack)
            marked = [file for file in files if self._mark and _inode(file) == self._mark.inode]
            if not files:
                return None
            first = (marked or files)[0]
            first.seek(self._mark.offset if self._mark and marked else 0)
            return _keep(first, stack, files)

    def _read(self, file: BinaryIO) -> list[str]:
        if os.fstat(file.fileno()).st_size < file.tell():  # emptied in place
            file.seek(0)
            self._rest = b""
        *whole, self._rest = (self._rest + file.read(_TURN)).split(b"\n")
        return [line.decode(errors="replace") for line in whole]

    def _turn_page(self, file: BinaryIO) -> list[str]:
        """Where the log was rotated: what was still written to this file, and after that the next file's lines."""
        if file.tell() < os.fstat(file.fileno()).st_size:
            return []
        following = self._next(file)
        if following is None:
            return []
        if lines := self._read(file):  # written between the last read and the rename
            following.close()
            return lines
        lines = [self._rest.decode(errors="replace")] if self._rest else []  # it will never get its line end
        self._rest = b""
        file.close()
        self._file = following
        return lines + self._read(following)

    def _next(self, file: BinaryIO) -> BinaryIO | None:
        """The file that came after `file`; None where that is still the newest."""
        mine = os.fstat(file.fileno())
        with ExitStack() as stack:
            files = _open_all(self._log, stack)
            inodes = [_inode(candidate) for candidate in files]
            if mine.st_ino in inodes:
                newer = files[: inodes.index(mine.st_ino)]
            else:  # rotated away or deleted: what was written to later came later
                newer = [
                    f for i, f in enumerate(files) if i == 0 or os.fstat(f.fileno()).st_mtime_ns >= mine.st_mtime_ns
                ]
            return _keep(newer[-1], stack, files) if newer else None


class Followers:
    """New lines of several parts' logs, in the order of their times."""

    def __init__(self, logs: Mapping[str, Path], marks: Mapping[str, Mark | None]) -> None:
        self._followers = {part: Follower(part, log, marks.get(part)) for part, log in logs.items()}

    def add(self, logs: Mapping[str, Path]) -> None:
        """Follow these from their first line, as far as they are not followed yet."""
        for part, log in logs.items():
            if part not in self._followers:
                self._followers[part] = Follower(part, log, None)

    def poll(self) -> list[Entry]:
        """What was written since the last time. Ask again while something comes."""
        return list(merge(follower.poll() for follower in self._followers.values()))

    def close(self) -> None:
        """Let go of the files."""
        for follower in self._followers.values():
            follower.close()


def _open_all(log: Path, stack: ExitStack) -> list[BinaryIO]:
    """The files of a log, newest first, each once even if it is renamed while we look."""
    opened: dict[int, BinaryIO] = {}
    for path in files_of(log):
        with suppress(FileNotFoundError):
            file = path.open("rb")
            if _inode(file) in opened:
                file.close()
            else:
                opened[_inode(file)] = stack.enter_context(file)
    return list(opened.values())


def _keep(file: BinaryIO, stack: ExitStack, files: Iterable[BinaryIO]) -> BinaryIO:
    """Close all files of the stack but one."""
    stack.pop_all()
    for other in files:
        if other is not file:
            other.close()
    return file


def _inode(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_ino


def _up_to(mark: Mark | None, files: list[BinaryIO]) -> list[tuple[BinaryIO, int]]:
    """How far each file may be read, newest first: nothing behind the mark, since that is the follower's."""
    if mark is None:
        return []
    inodes = [_inode(file) for file in files]
    first = inodes.index(mark.inode) if mark.inode in inodes else 0
    return [(f, mark.offset if _inode(f) == mark.inode else os.fstat(f.fileno()).st_size) for f in files[first:]]


def _backwards(part: str, files: Iterable[tuple[BinaryIO, int]]) -> Iterator[Entry]:
    """The entries from the last to the first; lines without a time wait for the line that gives them one."""
    waiting: list[str] = []
    first = BEGINNING
    for file, end in files:
        for line in _lines_backwards(file, end):
            waiting.append(line)
            if (found := decode(line)) is not None:
                yield from reversed(list(read_entries(part, reversed(waiting))))
                waiting, first = [], found.at
    yield from reversed(list(read_entries(part, reversed(waiting), first)))


def _lines_backwards(file: BinaryIO, end: int) -> Iterator[str]:
    """The lines before `end`, last first."""
    rest, some = b"", end > 0
    file.seek(max(0, end - 1))
    if some and file.read(1) == b"\n":
        end -= 1
    while end > 0:
        start = max(0, end - _BLOCK)
        file.seek(start)
        rest, *lines = (file.read(end - start) + rest).split(b"\n")
        yield from (line.decode(errors="replace") for line in reversed(lines))
        end = start
    if some:
        yield rest.decode(errors="replace")


def _lines(file: BinaryIO, end: int) -> Iterator[str]:
    """The lines before `end`, first first."""
    file.seek(0)
    while end > 0 and (line := file.readline(end)):
        end -= len(line)
        yield line.decode(errors="replace").rstrip("\n")


def _after_last_line(file: BinaryIO, size: int) -> int:
    """Offset behind the last line end before `size`."""
    end = size
    while end > 0:
        start = max(0, end - _BLOCK)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0
