"""The chaos matrix has a row for each cell, and two of its cells hold."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.chaos.cells import Cell, Fault, Found, Situation, Target, every_cell, faults_of
from tests.chaos.scene import run_cell

KILLED = Cell(Target.SERVER, Fault.KILL, Situation.STREAMING)


def test_the_matrix_has_every_cell_once() -> None:
    cells = list(every_cell())
    assert len(cells) == len(set(cells)) == 36


@pytest.mark.parametrize(
    "found",
    [
        Found(None),
        Found(99.0),
        Found(1.0, orphans=1),
        Found(1.0, doubles=1),
        Found(1.0, false=1),
    ],
)
def test_what_does_not_hold_is_said(found: Found) -> None:
    assert faults_of(KILLED, Found(1.0, cut=5)) == []
    assert len(faults_of(KILLED, found)) == 1


def test_streams_of_a_bystander_may_not_be_cut() -> None:
    assert faults_of(Cell(Target.STATS, Fault.KILL, Situation.STREAMING), Found(0.1, whole=4, cut=1))


def test_a_stopped_engine_that_stays_in_the_routes_fails() -> None:
    cell = Cell(Target.SERVER, Fault.STOP, Situation.IDLE)
    assert faults_of(cell, Found(9.0, out=5.0)) == []
    assert faults_of(cell, Found(9.0, out=11.0))


@pytest.mark.e2e
@pytest.mark.parametrize("cell", [KILLED, Cell(Target.HEALTH, Fault.KILL, Situation.LOADING)], ids=str)
def test_a_cell_holds(cell: Cell) -> None:
    wide = replace(cell, wide=True)
    assert faults_of(wide, run_cell(wide, settle=0.0)) == []
