"""Columns of text that fit the terminal: the least important column goes first when there is no room.

A line is a tuple of cells; `paint` turns it into text, with colour or without. Nothing here prints.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

Style = Literal["", "bold", "dim", "good", "busy", "bad", "cyan", "magenta", "blue", "mark"]

_CODES: dict[Style, str] = {
    "bold": "1",
    "dim": "2",
    "good": "32",
    "busy": "33",
    "bad": "31",
    "cyan": "36",
    "magenta": "35",
    "blue": "34",
    "mark": "7",
}
_GAP = "  "


@dataclass(frozen=True)
class Cell:
    """A piece of text and what it means."""

    text: str
    style: Style = ""


Line = tuple[Cell, ...]


@dataclass(frozen=True)
class Column:
    """A column: its title, whether it holds numbers (then flush right), and its rank: higher goes earlier, 0 never."""

    title: str
    number: bool = False
    rank: int = 0


def layout(columns: Sequence[Column], rows: Sequence[Line], width: int | None = None) -> Iterator[Line]:
    """The title line, then the rows, padded; without `width` every column stays.

    Columns are dropped by rank until the rest fits; what even then is too wide is left to the terminal to wrap.
    """
    table = [tuple(Cell(column.title, "bold") for column in columns), *rows]
    widths = [max(len(row[i].text) for row in table) for i in range(len(columns))]
    kept = _fitting(columns, widths, width)
    for row in table:
        yield tuple(_pad(row[i], widths[i], columns[i].number, last=i == kept[-1]) for i in kept)


def spaced(row: Line) -> Line:
    """A line of `layout` with its gaps."""
    return tuple(cell for position, one in enumerate(row) for cell in ((Cell(_GAP), one) if position else (one,)))


def paint(line: Line, *, colour: bool, gap: str = "") -> str:
    """The line as text; styles become terminal codes where `colour` is set."""
    return gap.join(_paint(cell, colour) for cell in line).rstrip()


def paint_row(line: Line, *, colour: bool) -> str:
    """A line of `layout` as text."""
    return paint(line, colour=colour, gap=_GAP)


def _fitting(columns: Sequence[Column], widths: Sequence[int], width: int | None) -> list[int]:
    kept = list(range(len(columns)))
    while width is not None and sum(widths[i] + len(_GAP) for i in kept) - len(_GAP) > width:
        worst = max(kept, key=lambda i: columns[i].rank)
        if columns[worst].rank == 0:
            break
        kept.remove(worst)
    return kept


def _pad(cell: Cell, width: int, number: bool, *, last: bool) -> Cell:
    if number:
        return replace(cell, text=cell.text.rjust(width))
    return cell if last else replace(cell, text=cell.text.ljust(width))


def _paint(cell: Cell, colour: bool) -> str:
    if not colour or not cell.style:
        return cell.text
    return f"\x1b[{_CODES[cell.style]}m{cell.text}\x1b[0m"
