"""Lines of cells made to fit a terminal: no line is ever wider than its screen, whatever stands in it.

Widths are those of the terminal's columns: an ideograph has two. Text from outside is cleaned by those who make the
cells; what is left here are tabs, and characters that have no width at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rich.cells import cell_len

from vllm_circus.view.table import Cell, Line, Style, paint

_MORE = "…"
#: What stands for the characters of a drawing where the terminal's encoding has none of them.
_BARE = str.maketrans({"█": "#", "░": ".", "─": "-", "…": ">", "←": "<", "→": ">", "●": "*"})


def width_of(line: Line) -> int:
    """Columns that the line takes."""
    return sum(cell_len(cell.text) for cell in line)


def fit(line: Line, width: int) -> Line:
    """The line in at most `width` columns; what was cut off is told by `…`."""
    line = tuple(Cell(cell.text.expandtabs(4), cell.style) for cell in line)
    if width_of(line) <= width:
        return line
    return (*_cut(line, width - 1), Cell(_MORE, "dim")) if width > 0 else ()


def _cut(line: Line, width: int) -> Iterator[Cell]:
    for cell in line:
        if width <= 0:
            return
        text = _head(cell.text, width)
        width -= cell_len(text)
        if text:
            yield Cell(text, cell.style)
        if text != cell.text:
            return


def _head(text: str, width: int) -> str:
    """As much of the text as fits."""
    if text.isascii():
        return text[:width]
    for end, character in enumerate(text):
        width -= cell_len(character)
        if width < 0:
            return text[:end]
    return text


def fold(line: Line, width: int) -> list[Line]:
    """The line on as many as it takes."""
    line = tuple(Cell(cell.text.expandtabs(4), cell.style) for cell in line)
    if width_of(line) <= width:
        return [line]
    rows: list[list[Cell]] = [[]]
    left = width
    for cell in line:
        text = cell.text
        while text:
            part = _head(text, left)
            if not part and left == width:  # one character that is wider than the screen
                text = text[1:]
                continue
            if part:
                rows[-1].append(Cell(part, cell.style))
            text, left = text[len(part) :], left - cell_len(part)
            if text:
                rows.append([])
                left = width
    return [tuple(row) for row in rows]


def paragraph(head: Cell, text: Cell, width: int, most: int) -> list[Line]:
    """Text behind its title, on as many as `most` lines, each begun below the first; what is left is cut off."""
    indent = cell_len(head.text)
    rows = _wrapped(text.text, max(1, width - indent))
    shown = [*rows[: most - 1], " ".join(rows[most - 1 :])] if len(rows) > most else rows
    return [fit((head if not at else Cell(" " * indent), Cell(row, text.style)), width) for at, row in enumerate(shown)]


def _wrapped(text: str, width: int) -> list[str]:
    """The words of a text on lines of that width; a word that is longer stands alone."""
    rows: list[str] = [""]
    for word in text.split():
        longer = f"{rows[-1]} {word}".lstrip()
        if rows[-1] and cell_len(longer) > width:
            rows.append(word)
        else:
            rows[-1] = longer
    return rows


def apart(left: Line, right: Line, width: int) -> Line:
    """Both on one line, the second one flush right; where they do not fit, the first one alone."""
    between = width - width_of(left) - width_of(right)
    return (*left, Cell(" " * between), *right) if between >= 2 else fit(left, width)


def rule(title: Line, right: Line, width: int) -> Line:
    """A line across the screen with words in it."""
    left: Line = (Cell("── ", "dim"), *title, Cell(" "))
    tail: Line = (Cell(" "), *right, Cell(" ──", "dim")) if right else ()
    between = width - width_of(left) - width_of(tail)
    if between < 1:
        return fit(left, width)
    return (*left, Cell("─" * between, "dim"), *tail)


def fits_rule(title: Line, right: Line, width: int) -> bool:
    """Whether both have room on such a line."""
    return width_of(title) + width_of(right) + len("──  ─  ──") <= width


def bar(share: float, width: int, style: Style = "good") -> Line:
    """A bar of that width, filled by a share of 0 to 1."""
    full = round(min(1.0, max(0.0, share)) * width)
    return Cell("█" * full, style), Cell("░" * (width - full), "dim")


def frame(lines: Iterable[Line], width: int, height: int) -> list[Line]:
    """Exactly as many lines as the screen has, none too wide."""
    shown = [fit(line, width) for line, _ in zip(lines, range(height), strict=False)]
    return [*shown, *[()] * (height - len(shown))]


def marked(line: Line, spots: Sequence[tuple[int, int]]) -> Line:
    """The line with stretches of its text, `(begin, end)` in order, marked."""
    if not spots:
        return line
    marks = {index for begin, end in spots for index in range(begin, end)}
    cells: list[Cell] = []
    at = 0
    for cell in line:
        for character in cell.text:
            style: Style = "mark" if at in marks else cell.style
            if cells and cells[-1].style == style:
                cells[-1] = Cell(cells[-1].text + character, style)
            else:
                cells.append(Cell(character, style))
            at += 1
    return tuple(cells)


def painted(line: Line, *, colour: bool) -> str:
    """The line for a terminal; without colour, marked text is still told from the rest."""
    if colour:
        return paint(line, colour=True)
    return "".join(paint((cell,), colour=True) if cell.style == "mark" else cell.text for cell in line).rstrip()


def encoded(text: str, encoding: str) -> bytes:
    """Text in the terminal's encoding, with something in place of what it does not have."""
    try:
        return text.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return text.translate(_BARE).encode("ascii", "replace")
