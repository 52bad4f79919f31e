"""The faults have a row each, every row a verdict; those that nothing else tests end to end hold."""

from __future__ import annotations

import pytest

from tests.chaos.__main__ import main
from tests.chaos.chatter import line, numbers
from tests.chaos.faults import ROWS, Row, run_row, run_rows
from tests.chaos.ground import Notes, NotTried
from tests.chaos.other_faults import clock_set, disk_full, log_gone


def row(run: object) -> Row:
    return Row("name", "done", "owed", run)  # type: ignore[arg-type] # whatever a test gives


def test_every_row_has_its_name_and_says_what_is_owed() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS) == 10
    assert all(row.done and row.owed for row in ROWS)


def test_a_row_has_its_verdict_whatever_becomes_of_it() -> None:
    def late(notes: Notes) -> None:
        notes.time("back", 3.0, 2.0)

    def never(notes: Notes) -> None:
        notes.time("back", None, 2.0)

    def breaks(_: Notes) -> None:
        raise ValueError("a | b\nc")

    def absent(_: Notes) -> None:
        raise NotTried("no root")

    runs = (late, never, breaks, absent, lambda notes: notes.time("back", 1.0, 2.0))
    verdicts = list(run_rows(map(row, runs), jobs=2))
    assert [one.passed for one in verdicts] == [False, False, False, True, True]
    assert verdicts[0].line() == "| name | done | owed | back after 3.0 s | **FAILS**: back: owed within 2 s |"
    assert verdicts[1].found == "back never"
    assert verdicts[2].line().endswith("**FAILS**: ValueError: a \\| b c |")
    assert (verdicts[3].found, verdicts[3].verdict) == ("no root", "not tried")
    assert verdicts[4].verdict == "holds"


def test_a_row_that_fails_is_an_exit_code_of_1(monkeypatch: pytest.MonkeyPatch, capsys: object) -> None:
    def fails(notes: Notes) -> None:
        notes.that(False, "no")

    for run, code in ((fails, 1), (lambda notes: notes.say("fine"), 0)):
        monkeypatch.setattr("tests.chaos.__main__.ROWS", (row(run),))
        assert main(["--fault", "name"]) == code
        assert main(["--faults"]) == code


def test_a_line_that_was_cut_is_not_whole() -> None:
    assert numbers([line(7), line(8)[:-1], line(9)[2:], "x" + line(10)]) == [7, 10]


@pytest.mark.e2e
def test_a_full_disk_stops_nothing() -> None:
    verdict = run_row(row(lambda notes: disk_full(notes, seconds=2.0)))
    assert verdict.verdict in {"holds", "not tried"}, verdict.line()  # only root may mount


@pytest.mark.e2e
@pytest.mark.parametrize("run", [clock_set, log_gone])
def test_a_fault_does_no_harm(run: object) -> None:
    verdict = run_row(row(run))
    assert verdict.verdict == "holds", verdict.line()
