"""The torture runs and has a verdict for each of its rows; its own judge takes nothing broken for whole."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.torture.rows import ROWS
from tests.torture.stage import ROOT
from tests.torture.wire import DONE, LAST_CHUNK, STREAM_HEAD, Kind, Order, chunk, judge, read_stream, request

ORDER = Order(3, 10, 7)
EVENTS = [chunk(ORDER.event(number)) for number in range(3)]
ERROR = chunk(b'data: {"error": {}}\n\n')


def test_a_quick_run_has_a_verdict_for_every_row_and_all_hold() -> None:
    """Three processes, since the rows mostly wait."""
    shares = [[row.name for row in ROWS[first::3]] for first in range(3)]
    argv = [sys.executable, "-m", "tests.torture", "--quick"]
    runs = [subprocess.Popen([*argv, *names], cwd=ROOT, stdout=subprocess.PIPE, text=True) for names in shares]
    for run, names in zip(runs, shares, strict=True):
        said = run.communicate(timeout=150)[0]
        assert run.returncode == 0, said
        rows = [line.removeprefix("| ").split(" | ") for line in said.splitlines() if line.startswith("| ")]
        assert [cells[0] for cells in rows[2:]] == names
        assert {cells[4] for cells in rows[2:]} <= {"holds", "not tried"}


def test_a_row_that_nobody_knows_is_a_fault_of_the_command_line() -> None:
    argv = [sys.executable, "-m", "tests.torture", "nothing"]
    run = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 2
    assert "no row called nothing" in run.stderr


JUDGED = {
    Kind.WHOLE: [[*EVENTS, chunk(DONE), LAST_CHUNK]],
    Kind.CUT: [[], EVENTS[:1], EVENTS, [*EVENTS[:2], ERROR], [*EVENTS[:1], EVENTS[1][:-9]], [*EVENTS, b"0\r\n"]],
    Kind.FALSE: [
        [LAST_CHUNK],
        [*EVENTS[:2], LAST_CHUNK],
        [*EVENTS[:2], chunk(DONE), LAST_CHUNK],
        [*EVENTS, chunk(DONE)],
        [*EVENTS, LAST_CHUNK],
        [*EVENTS[:2], ERROR, LAST_CHUNK],
    ],
    Kind.CORRUPT: [
        [EVENTS[0], EVENTS[2], chunk(DONE), LAST_CHUNK],
        [EVENTS[0], EVENTS[0]],
        [chunk(Order(3, 10, 8).event(0))],
        [EVENTS[0].replace(b'"n":0', b'"n":1')],
    ],
}


@pytest.mark.parametrize("kind", JUDGED, ids=lambda kind: kind.name)
def test_the_judge_tells_what_became_of_a_stream(kind: Kind) -> None:
    for pieces in JUDGED[kind]:
        assert judge(STREAM_HEAD + b"".join(pieces), ORDER) is kind, pieces


def test_the_judge_knows_refusals_and_silence() -> None:
    assert judge(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\n\r\n{}", ORDER) is Kind.REFUSED
    for raw in (b"", b"HTTP/1.1 200 OK\r\nConten"):
        assert judge(raw, ORDER) is Kind.NOTHING


def test_an_order_survives_its_way() -> None:
    line, _, rest = request(ORDER.target, seed=ORDER.seed).partition(b"\r\n")
    assert read_stream(line, rest) == ORDER
    assert read_stream(b"POST /v1/chat/completions HTTP/1.1", b"") is None
