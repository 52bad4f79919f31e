"""A log file outlives rotation, deletion and a full disk."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from vllm_circus.logline import decode
from vllm_circus.supervise.logfile import LogFile


def texts(path: Path) -> list[str]:
    return [line.text for raw in path.read_text().splitlines() if (line := decode(raw))]


def test_the_folder_is_made_and_the_file_is_not_for_everybody(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "a.log"
    LogFile(path).write("O", "x")
    assert stat.S_IMODE(path.stat().st_mode) & 0o007 == 0


def test_old_lines_are_kept(tmp_path: Path) -> None:
    for text in ("one", "two"):
        file = LogFile(tmp_path / "a.log")
        file.write("O", text)
        file.close()
    assert texts(tmp_path / "a.log") == ["one", "two"]


def test_rotation_cuts_no_line_and_keeps_so_many_files(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    file = LogFile(path, max_bytes=400, backups=2)
    for number in range(100):
        file.write("O", f"line {number}")
    assert {entry.name for entry in tmp_path.iterdir()} == {"a.log", "a.log.1", "a.log.2"}
    kept = [text for name in ("a.log.2", "a.log.1", "a.log") for text in texts(tmp_path / name)]
    assert kept == [f"line {number}" for number in range(100 - len(kept), 100)]
    assert all(entry.stat().st_size <= 400 for entry in tmp_path.iterdir())


def test_without_backups_rotation_begins_anew(tmp_path: Path) -> None:
    file = LogFile(tmp_path / "a.log", max_bytes=100)
    for number in range(10):
        file.write("O", f"line {number}")
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.log"]
    assert texts(tmp_path / "a.log")[-1] == "line 9"


def test_a_line_longer_than_the_limit_is_written_whole(tmp_path: Path) -> None:
    file = LogFile(tmp_path / "a.log", max_bytes=100, backups=1)
    for text in ("x" * 500, "y"):
        file.write("O", text)
    assert texts(tmp_path / "a.log.1") == ["x" * 500]
    assert texts(tmp_path / "a.log") == ["y"]


def test_two_writers_share_a_file_through_rotations(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    writers = [LogFile(path, max_bytes=400, backups=50) for _ in range(2)]
    for number in range(100):
        writers[number % 2].write("O", f"line {number}")
    files = sorted(tmp_path.iterdir(), key=lambda entry: -int(entry.suffix[1:]) if entry.suffix != ".log" else 0)
    assert [text for file in files for text in texts(file)] == [f"line {number}" for number in range(100)]


@pytest.mark.parametrize("remove", [Path.unlink, lambda path: path.rename(path.with_name("moved"))])
def test_a_deleted_or_moved_file_is_made_anew(tmp_path: Path, remove: Callable[[Path], object]) -> None:
    path = tmp_path / "a.log"
    file = LogFile(path)
    file.write("O", "one")
    remove(path)
    file.write("O", "two")
    assert texts(path) == ["two"]


class Disk:
    """Stands in for `os.write`: takes so many bytes more, then is full."""

    def __init__(self) -> None:
        self.room: int | None = None
        self.write_really = os.write

    def write(self, handle: int, data: bytes) -> int:
        if self.room is None:
            return self.write_really(handle, data)
        if self.room == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = self.write_really(handle, data[: self.room])
        self.room -= written
        return written


def test_a_full_disk_loses_lines_and_says_so_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk, file = Disk(), LogFile(tmp_path / "a.log")
    monkeypatch.setattr("vllm_circus.supervise.logfile.os.write", disk.write)
    file.write("O", "before")
    disk.room = 10
    for number in range(5):
        file.write("O", f"lost {number}")
    assert file.lost == 5
    disk.room = None
    file.write("O", "after")
    assert texts(tmp_path / "a.log") == [
        "before",
        "vllm-circus: 5 lines were lost here: No space left on device",
        "after",
    ]
    assert file.lost == 0


@pytest.mark.parametrize("room", [0, 1, 37, 38, 39, 60, 75, 76, 77, 150, 151, 152, 153, 200])
def test_what_a_full_disk_still_takes_is_not_counted_as_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    """Whatever the disk takes of a write of several lines, and of the next ones: what is missing is what is said."""
    disk, file = Disk(), LogFile(tmp_path / "a.log")
    monkeypatch.setattr("vllm_circus.supervise.logfile.os.write", disk.write)
    for begin in range(0, 20, 5):
        disk.room = room
        file.write("O", *(f"line {number:02}" for number in range(begin, begin + 5)))
    disk.room = None
    file.write("O", "line 20")
    found = texts(tmp_path / "a.log")
    kept = [text for text in found if re.fullmatch(r"line \d\d", text)]
    said = sum(int(text.split()[1]) for text in found if text.startswith("vllm-circus: ") and "lost here" in text)
    assert said == 21 - len(kept)
    assert kept == sorted(set(kept))


def test_a_folder_that_cannot_be_written_raises_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder").write_text("a file is in the way")
    file = LogFile(tmp_path / "folder" / "a.log")
    file.write("O", "x")
    assert file.lost == 1


def test_a_device_that_is_always_full_raises_nothing() -> None:
    file = LogFile(Path("/dev/full"))
    file.write("O", "x")
    assert file.lost == 1
