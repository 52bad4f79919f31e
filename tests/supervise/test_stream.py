"""Chunks of output become whole, stamped lines."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest
from circus.stream import get_stream
from hypothesis import given
from hypothesis import strategies as st

from vllm_circus.logline import LogLine, decode
from vllm_circus.supervise.stream import CUT, LONGEST, LogStream


class Clock:
    """Time that passes when told, and the timers that wait for it."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def __call__(self) -> float:
        return self.now

    def later(self, delay: float, callback: Callable[[], None]) -> Clock:
        self.timers.append((self.now + delay, callback))
        return self

    def cancel(self) -> None:
        self.timers.clear()

    def pass_by(self, seconds: float) -> None:
        self.now += seconds
        due, self.timers = ([t for t in self.timers if t[0] <= self.now], [t for t in self.timers if t[0] > self.now])
        for _, callback in due:
            callback()


class Bench:
    def __init__(self, path: Path, **options: str) -> None:
        self.path, self.clock = path, Clock()
        now = datetime(2026, 11, 23, 14, 31, 53, tzinfo=UTC)
        self.stream = LogStream(
            filename=str(path), now=lambda: now, clock=self.clock, later=self.clock.later, **options
        )

    def feed(self, data: bytes, pid: int = 1) -> None:
        self.stream({"data": data, "pid": pid, "name": "stdout"})

    @property
    def texts(self) -> list[str]:
        return [line.text for line in self.lines]

    @property
    def lines(self) -> list[LogLine]:
        raw = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
        return [line for text in raw if (line := decode(text))]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "a.log")


def test_a_line_is_stamped_and_carries_its_channel(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "a.log", channel="E")
    bench.feed(b"hello\n")
    assert bench.path.read_text() == "2026-11-23T14:31:53.000+00:00 E hello\n"


def test_lines_are_whole_whatever_the_chunks(bench: Bench) -> None:
    for chunk in (b"on", b"e\ntw", b"o\nthree\n"):
        bench.feed(chunk)
    assert bench.texts == ["one", "two", "three"]


def test_characters_are_whole_whatever_the_chunks(bench: Bench) -> None:
    for byte in "Zoë 漢 😀\n".encode():
        bench.feed(bytes([byte]))
    assert bench.texts == ["Zoë 漢 😀"]


def test_what_is_not_utf8_is_replaced(bench: Bench) -> None:
    bench.feed(b"a\xff\xfeb\n")
    assert bench.texts == ["a\ufffd\ufffdb"]


def test_processes_do_not_mix(bench: Bench) -> None:
    bench.feed(b"first ", pid=1)
    bench.feed(b"second\n", pid=2)
    bench.feed(b"line\n", pid=1)
    assert bench.texts == ["second", "first line"]


def test_an_unfinished_line_waits_a_second_of_silence(bench: Bench) -> None:
    bench.feed(b"Password: ")
    bench.clock.pass_by(0.9)
    assert bench.texts == []
    bench.clock.pass_by(0.2)
    assert bench.texts == ["Password: "]


def test_a_busy_process_has_no_line_cut_by_the_clock(bench: Bench) -> None:
    for _ in range(10):
        bench.feed(b"x" * 10)
        bench.clock.pass_by(0.4)
    bench.feed(b"\n")
    assert bench.texts == ["x" * 100]


def test_an_unfinished_line_is_written_at_the_end(bench: Bench) -> None:
    bench.feed(b"last words")
    bench.stream.close()
    assert bench.texts == ["last words"]


def test_a_stream_can_be_used_again_after_its_end(bench: Bench) -> None:
    bench.feed(b"one\n")
    bench.stream.close()
    bench.stream.open()
    bench.feed(b"two\n")
    assert bench.texts == ["one", "two"]


def test_a_long_line_becomes_several_with_a_mark(bench: Bench) -> None:
    bench.feed(b"x" * (2 * LONGEST + 5) + b"\nnext\n")
    assert bench.texts == ["x" * LONGEST + CUT, "x" * LONGEST + CUT, "x" * 5, "next"]


def test_a_line_without_an_end_holds_bounded_memory(bench: Bench) -> None:
    for _ in range(20):
        bench.feed(b"x" * LONGEST)
    assert bench.texts == ["x" * LONGEST + CUT] * 19


def test_windows_line_ends_are_line_ends(bench: Bench) -> None:
    for chunk in (b"one\r\ntwo\r", b"\nthree\r\n"):
        bench.feed(chunk)
    assert bench.texts == ["one", "two", "three"]


def test_a_progress_bar_keeps_one_line_a_second_and_its_end(bench: Bench) -> None:
    for step in range(40):
        bench.feed(f"\r{step} of 40".encode())
        bench.clock.pass_by(0.1)
    bench.feed(b"\r40 of 40\n")
    assert 4 <= len(bench.texts) <= 6
    assert bench.texts[-1] == "40 of 40"


def test_a_progress_bar_that_stands_still_is_shown(bench: Bench) -> None:
    bench.feed(b"10 %\r20 %\r")
    bench.clock.pass_by(1.1)
    assert bench.texts == ["10 %", "20 %"]


def test_control_characters_do_not_reach_the_file(bench: Bench) -> None:
    bench.feed(b"\x1b[31mred\x1b[0m \x07bell\n")
    assert bench.texts == ["red \\x07bell"]


def test_empty_lines_are_lines(bench: Bench) -> None:
    bench.feed(b"a\n\nb\n")
    assert bench.texts == ["a", "", "b"]


@given(st.binary(max_size=300), st.lists(st.integers(0, 300)))
def test_no_line_is_lost_or_invented(tmp_path_factory: pytest.TempPathFactory, data: bytes, cuts: list[int]) -> None:
    bench = Bench(tmp_path_factory.mktemp("stream") / "a.log")
    data = data.replace(b"\r", b"")
    edges = [0, *sorted(cuts), len(data)]
    for start, end in pairwise(edges):
        bench.feed(data[start:end])
    bench.stream.close()
    whole = Bench(bench.path.with_name("b.log"))
    whole.feed(data)
    whole.stream.close()
    expected = len(data.split(b"\n")) - (data.endswith(b"\n") or not data)
    assert bench.lines == whole.lines
    assert len(bench.lines) == expected


def test_circus_makes_it_from_the_ini(tmp_path: Path) -> None:
    stream = get_stream(
        {
            "class": "vllm_circus.supervise.stream.LogStream",
            "filename": str(tmp_path / "a.log"),
            "channel": "E",
            "max_bytes": "1000",
            "backups": "2",
        }
    )
    assert isinstance(stream, LogStream)
