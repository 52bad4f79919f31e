"""Reading log files while they grow, are rotated, emptied and deleted."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from vllm_circus.logline import encode
from vllm_circus.view.logs import Entry, Wanted
from vllm_circus.view.tail import Follower, Followers, all_entries, files_of, last_entries, mark_end

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
ANY = Wanted()


class Writer:
    """Writes numbered lines, one a second, and rotates as our log files do."""

    def __init__(self, log: Path, backups: int = 5) -> None:
        self.log = log
        self.written: list[str] = []
        self._backups = backups

    def write(self, text: str | None = None) -> None:
        number = len(self.written)
        self.written.append(f"line {number}" if text is None else text)
        with self.log.open("a") as file:
            file.write(encode(NOON + timedelta(seconds=number), "O", self.written[-1]))

    def rotate(self) -> None:
        for number in range(self._backups - 1, 0, -1):
            old = self.log.with_name(f"{self.log.name}.{number}")
            if old.exists():
                old.replace(self.log.with_name(f"{self.log.name}.{number + 1}"))
        if self.log.exists():
            self.log.replace(self.log.with_name(f"{self.log.name}.1"))


@pytest.fixture
def writer(tmp_path: Path) -> Writer:
    return Writer(tmp_path / "qwen.log")


def texts(entries: list[Entry]) -> list[str]:
    return [entry.text for entry in entries]


def last(log: Path, number: int, wanted: Wanted = ANY) -> list[str]:
    return texts(last_entries("qwen", log, number, wanted, mark_end(log)))


def everything(log: Path, wanted: Wanted = ANY) -> list[str]:
    return texts(list(all_entries("qwen", log, wanted, mark_end(log))))


def drain(follower: Follower) -> list[str]:
    found: list[str] = []
    while entries := follower.poll():
        found += texts(entries)
    return found


def test_the_files_of_a_log_come_newest_first(writer: Writer) -> None:
    for _ in range(12):
        writer.write()
        writer.rotate()
    (writer.log.parent / "qwen.log.gz").touch()
    (writer.log.parent / "qwen.log.1.tmp").touch()
    writer.write()
    assert [path.name for path in files_of(writer.log)] == ["qwen.log", *(f"qwen.log.{n}" for n in range(1, 6))]


def test_a_log_that_is_not_there_has_no_lines(tmp_path: Path) -> None:
    for log in (tmp_path / "no.log", tmp_path / "no" / "no.log"):
        assert last(log, 10) == []
        assert everything(log) == []
        assert Follower("no", log, None).poll() == []


def test_the_last_lines_reach_back_into_rotated_files(writer: Writer) -> None:
    for number in range(10):
        writer.write()
        if number in {3, 6}:
            writer.rotate()
    assert last(writer.log, 5) == [f"line {n}" for n in range(5, 10)]
    assert last(writer.log, 99) == writer.written
    assert last(writer.log, 0) == []


def test_the_last_lines_are_counted_after_the_filter(writer: Writer) -> None:
    for number in range(10):
        writer.write("an error" if number in {1, 2, 3} else None)
    assert last(writer.log, 2, Wanted(pattern=re.compile("error"))) == ["an error"] * 2
    assert last(writer.log, 9, Wanted(since=NOON + timedelta(seconds=8))) == ["line 8", "line 9"]
    assert everything(writer.log, Wanted(since=NOON + timedelta(seconds=8))) == ["line 8", "line 9"]


def test_the_first_lines_are_as_old_as_what_follows_them(writer: Writer) -> None:
    writer.log.write_text("warning: early\n")
    writer.write()
    for wanted in (Wanted(since=NOON), ANY):
        assert everything(writer.log, wanted) == last(writer.log, 9, wanted) == ["warning: early", "line 0"]
    assert everything(writer.log, Wanted(since=NOON + timedelta(seconds=1))) == []


@settings(max_examples=60, deadline=None)
@given(some.lists(some.binary(max_size=200).filter(lambda data: b"\n" not in data), max_size=40), some.integers(1, 50))
def test_reading_backwards_is_reading_forwards_turned_round(lines: list[bytes], number: int) -> None:
    with TemporaryDirectory() as folder:
        log = Path(folder) / "x.log"
        log.write_bytes(b"".join(line + b"\n" for line in lines))
        assert last(log, number) == everything(log)[-number:]


def test_lines_longer_than_a_block_are_read_whole(writer: Writer) -> None:
    for size in (70_000, 3, 200_000):
        writer.write("x" * size)
    assert last(writer.log, 3) == writer.written
    assert everything(writer.log) == writer.written


def test_a_line_that_is_being_written_waits_for_its_end(writer: Writer) -> None:
    writer.write()
    with writer.log.open("a") as file:
        file.write("half")
    assert last(writer.log, 5) == ["line 0"]
    follower = Follower("qwen", writer.log, mark_end(writer.log))
    assert drain(follower) == []
    with writer.log.open("a") as file:
        file.write(" and half\n")
    assert drain(follower) == ["half and half"]


def test_a_file_that_comes_later_is_followed_from_its_first_line(writer: Writer) -> None:
    follower = Follower("qwen", writer.log, mark_end(writer.log))
    assert drain(follower) == []
    writer.write()
    assert drain(follower) == ["line 0"]


def test_a_file_that_is_deleted_is_followed_when_it_comes_again(writer: Writer) -> None:
    follower = Follower("qwen", writer.log, None)
    writer.write()
    assert drain(follower) == ["line 0"]
    writer.log.unlink()
    assert drain(follower) == []
    writer.write()
    assert drain(follower) == ["line 1"]


def test_a_file_that_is_emptied_is_followed_from_its_new_beginning(writer: Writer) -> None:
    follower = Follower("qwen", writer.log, None)
    for _ in range(3):
        writer.write()
    assert len(drain(follower)) == 3
    writer.log.write_text("")
    writer.write()
    assert drain(follower) == ["line 3"]


def test_what_was_torn_at_the_end_of_a_rotated_file_is_shown(writer: Writer) -> None:
    follower = Follower("qwen", writer.log, None)
    writer.write()
    with writer.log.open("a") as file:
        file.write("torn")
    assert drain(follower) == ["line 0"]
    writer.rotate()
    writer.write()
    assert drain(follower) == ["torn", "line 1"]


STEPS = some.lists(some.sampled_from(["write", "write", "rotate", "poll"]), max_size=60)


@settings(max_examples=150, deadline=None)
@given(STEPS, STEPS)
def test_nothing_is_lost_or_doubled_across_rotation(before: list[str], after: list[str]) -> None:
    """What was there is read once by the tail, everything later once by the follower."""
    with TemporaryDirectory() as folder:
        writer = Writer(Path(folder) / "x.log", backups=200)
        writer.write()
        _play(writer, before, lambda: None)
        writer.write()
        mark = mark_end(writer.log)
        follower = Follower("x", writer.log, mark)
        followed: list[str] = []
        _play(writer, after, lambda: followed.extend(texts(follower.poll())))
        found = texts(last_entries("x", writer.log, 10_000, ANY, mark)) + followed + drain(follower)
        follower.close()
    assert found == writer.written


def _play(writer: Writer, steps: list[str], poll: Callable[[], None]) -> None:
    for step in steps:
        {"write": writer.write, "rotate": writer.rotate, "poll": poll}[step]()


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_a_slow_reader_loses_whole_files_only_and_doubles_nothing(steps: list[str]) -> None:
    with TemporaryDirectory() as folder:
        writer = Writer(Path(folder) / "x.log", backups=1)
        writer.write()
        follower = Follower("x", writer.log, None)
        found = texts(follower.poll())
        _play(writer, steps, lambda: found.extend(texts(follower.poll())))
        writer.write()
        found += drain(follower)
        follower.close()
    assert found == sorted(set(found), key=writer.written.index)
    assert found[-1] == writer.written[-1]


def test_several_parts_come_in_the_order_of_their_times(tmp_path: Path) -> None:
    one, other = Writer(tmp_path / "a.log"), Writer(tmp_path / "b.log")
    followers = Followers({"a": one.log}, {})
    followers.add({"a": one.log, "b": other.log})
    for writer in (other, one, one, other):
        writer.write()
    assert [(entry.part, entry.text) for entry in followers.poll()] == [
        ("a", "line 0"),
        ("b", "line 0"),
        ("a", "line 1"),
        ("b", "line 1"),
    ]
    assert followers.poll() == []
    followers.close()
