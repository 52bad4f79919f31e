"""Lines that fit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from tests.screens.drawn import text
from vllm_circus.screens.canvas import (
    apart,
    bar,
    encoded,
    fit,
    fold,
    frame,
    marked,
    painted,
    paragraph,
    rule,
    width_of,
)
from vllm_circus.view.table import Cell, Line

WORDS = st.text(st.characters(exclude_categories=["Cs", "Cc"]) | st.just("\t"), max_size=60)
LINES = st.lists(WORDS.map(Cell), max_size=4).map(tuple)


def plain(line: Line) -> str:
    return "".join(cell.text for cell in line)


def test_what_is_cut_off_is_told() -> None:
    assert plain(fit((Cell("hello "), Cell("world")), 8)) == "hello w…"
    assert plain(fit((Cell("漢字漢字"),), 5)) == "漢字…"
    assert plain(fit((Cell("漢字漢字"),), 6)) == "漢字…"
    assert plain(fit((Cell("same"),), 4)) == "same"
    assert fit((Cell("x"),), 0) == ()


@given(LINES, st.integers(0, 70))
def test_no_line_is_wider_than_its_screen(line: Line, width: int) -> None:
    assert width_of(fit(line, width)) <= width


@given(LINES, st.integers(2, 70))
def test_a_folded_line_loses_nothing(line: Line, width: int) -> None:
    rows = fold(line, width)
    assert all(width_of(row) <= width for row in rows)
    assert "".join(map(plain, rows)) == "".join(cell.text.expandtabs(4) for cell in line)


@given(LINES, LINES, st.integers(1, 90))
def test_whatever_stands_side_by_side_fits(left: Line, right: Line, width: int) -> None:
    assert width_of(apart(left, right, width)) <= width
    assert width_of(rule(left, right, width)) <= width


def test_a_bar_is_as_long_as_it_is_told_to_be() -> None:
    assert plain(bar(0.5, 10)) == "█████░░░░░"
    assert plain(bar(-1, 4)) == "░░░░"
    assert plain(bar(7.0, 4)) == "████"


def test_a_frame_has_every_line_of_the_screen() -> None:
    assert text(frame([(Cell("a"),)], 5, 3)) == ["a", "", ""]
    assert len(frame([()] * 9, 5, 3)) == 3


def test_a_paragraph_is_indented_and_ends_after_so_many_lines() -> None:
    lines = text(paragraph(Cell("why "), Cell("it broke since the disk is full"), 14, 2))
    assert lines == ["why it broke", "    since the…"]
    assert text(paragraph(Cell("why "), Cell("0123456789" * 2), 14, 2)) == ["why 012345678…"]
    assert text(paragraph(Cell("why "), Cell("short"), 14, 2)) == ["why short"]
    assert text(paragraph(Cell("why "), Cell(""), 14, 2)) == ["why"]


def test_marks_keep_the_style_of_the_rest() -> None:
    line = marked((Cell("ab", "dim"), Cell("cd", "bad")), [(1, 3)])
    assert line == (Cell("a", "dim"), Cell("bc", "mark"), Cell("d", "bad"))


def test_without_colour_marks_are_still_seen() -> None:
    assert painted((Cell("a", "bad"), Cell("b", "mark")), colour=False) == "a\x1b[7mb\x1b[0m"
    assert painted((Cell("a", "bad"),), colour=True) == "\x1b[31ma\x1b[0m"


@pytest.mark.parametrize(("encoding", "data"), [("utf-8", "█é".encode()), ("ascii", b"#?"), ("no-such", b"#?")])
def test_a_terminal_gets_what_its_encoding_has(encoding: str, data: bytes) -> None:
    assert encoded("█é", encoding) == data


@given(WORDS)
def test_ascii_has_something_for_everything(words: str) -> None:
    assert len(encoded(words, "ascii")) <= max(len(words), cell_len(words))
