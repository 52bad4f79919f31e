from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from plugins.logtail import LogTail
from vllm_circus import logline

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


def write(path: Path, *texts: str, at: datetime = NOON) -> None:
    with path.open("a") as file:
        file.writelines(logline.encode(at, "E", text) for text in texts)


def test_the_phase_is_the_last_one_told_since_it_was_asked(short_dir: Path) -> None:
    path = short_dir / "a.log"
    write(path, "Starting vLLM server on http://x")  # by an earlier process
    tail = LogTail(path)
    assert tail.phase() is None
    write(path, "non-default args: {}", "Starting to load model /m", "chatter")
    assert tail.phase() == "loading weights"
    assert tail.phase() is None
    with path.open("a") as file:
        half = logline.encode(NOON, "O", "init engine (profile) took 1 s")
        file.write(half[:40])
        file.flush()
        assert tail.phase() is None
        file.write(half[40:])
    assert tail.phase() == "engine started"


def test_only_what_this_process_wrote_lately_tells_why_it_died(short_dir: Path) -> None:
    path = short_dir / "a.log"
    write(path, "ValueError: of its predecessor")
    tail = LogTail(path)
    write(path, "KeyError: of a request hours ago")
    write(path, "Traceback", "OSError: the end", at=NOON + timedelta(hours=3))
    assert tail.last_lines() == ["Traceback", "OSError: the end"]
    tail.mark()
    assert tail.last_lines() == []


def test_rotation_and_deletion_harm_nothing(short_dir: Path) -> None:
    path = short_dir / "a.log"
    tail = LogTail(path)
    assert tail.phase() is None
    assert tail.last_lines() == []
    write(path, *["chatter"] * 100)
    tail.mark()
    path.rename(short_dir / "a.log.1")
    write(path, "Starting to load model /m")
    assert tail.phase() == "loading weights"
    assert tail.last_lines() == ["Starting to load model /m"]
    path.unlink()
    assert tail.phase() is None
    assert tail.last_lines() == []


def test_a_flood_costs_a_bounded_read(short_dir: Path) -> None:
    path = short_dir / "a.log"
    tail = LogTail(path)
    write(path, *["x" * 1000] * 3000, "Starting to load model /m")
    assert tail.phase() == "loading weights"
    assert len(tail.last_lines()) < 300
    path.write_bytes(b"\xff\x00" * 200_000)
    assert tail.phase() is None
    assert tail.last_lines() == []


def test_a_cause_that_stands_far_before_the_end_is_among_the_last_lines(short_dir: Path) -> None:
    path = short_dir / "a.log"
    tail = LogTail(path)
    write(path, "ValueError: the cause", *["  File x.py, line 1, in y" * 4] * 1500, "RuntimeError: see above")
    assert tail.last_lines()[0] == "ValueError: the cause"
