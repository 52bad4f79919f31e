"""Lines of a view, made ready to be shown above a question."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from textwrap import wrap

from vllm_circus.view.table import Cell, Line, spaced


def flat(lines: Iterable[tuple[Line, bool]]) -> Iterator[Line]:
    """Views say of each line whether it is a row of a table; a row's cells have a gap between them."""
    for line, is_row in lines:
        yield spaced(line) if is_row else line


def within(lines: Iterable[Line], width: int) -> Iterator[Line]:
    """Lines that are no longer than the width: the last cell goes on below itself, or is cut where it is dim.

    Words stay whole, so that a path can be pasted; one that is longer than the width stays so.
    """
    for line in lines:
        yield from _within(line, width)


def _within(line: Line, width: int) -> Iterator[Line]:
    *head, last = line or (Cell(""),)
    room = width - sum(len(cell.text) for cell in head)
    if len(last.text) <= room or room < width // 3:
        yield line
    elif last.style == "dim":
        yield *head, replace(last, text=f"{last.text[: room - 1]}…")
    else:
        first, *more = wrap(last.text, room, break_long_words=False, break_on_hyphens=False) or [""]
        yield *head, replace(last, text=first)
        yield from ((Cell(" " * (width - room)), replace(last, text=piece)) for piece in more)
