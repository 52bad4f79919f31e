"""Columns that fit."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as some

from vllm_circus.view.table import Cell, Column, layout, paint, paint_row

COLUMNS = (Column("NAME"), Column("NUMBER", number=True, rank=1), Column("EXTRA", rank=2))
ROWS = [(Cell("a"), Cell("1"), Cell("x")), (Cell("longer"), Cell("22"), Cell("yyyyyyyy"))]


def text(width: int | None) -> list[str]:
    return [paint_row(line, colour=False) for line in layout(COLUMNS, ROWS, width)]


def test_text_goes_left_and_numbers_go_right() -> None:
    assert text(None) == [
        "NAME    NUMBER  EXTRA",
        "a            1  x",
        "longer      22  yyyyyyyy",
    ]


def test_the_least_important_column_goes_first() -> None:
    assert text(20) == ["NAME    NUMBER", "a            1", "longer      22"]
    assert text(10) == ["NAME", "a", "longer"]


def test_columns_of_rank_zero_stay_however_narrow_it_is() -> None:
    assert text(1) == ["NAME", "a", "longer"]


@given(some.integers(14, 60))
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    assert all(len(line) <= width for line in text(width))


def test_a_table_without_rows_is_its_title() -> None:
    assert [paint_row(line, colour=False) for line in layout(COLUMNS, [])] == ["NAME  NUMBER  EXTRA"]


def test_colour_is_written_only_where_it_is_wanted() -> None:
    line = (Cell("ok", "good"), Cell(" plain"))
    assert paint(line, colour=True) == "\x1b[32mok\x1b[0m plain"
    assert paint(line, colour=False) == "ok plain"
