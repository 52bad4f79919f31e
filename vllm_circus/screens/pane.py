"""A log that scrolls, follows and is searched: pure, a pane and a key in, a pane out.

Lines are numbered from the first one ever seen, so that a place stays the same place while old lines are forgotten.
A pane that follows shows the newest line at its bottom; one that does not stays where it is, whatever comes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from vllm_circus.logline import clean
from vllm_circus.screens.canvas import fit, fold, marked
from vllm_circus.view.logs import Entry, Form
from vllm_circus.view.table import Cell, Line

#: Lines that are kept: as many as a person scrolls through.
KEPT = 5000
_LONGEST_QUERY = 200


@dataclass(frozen=True)
class Pane:
    """A log and how it is looked at.

    Attributes:
        entries: the lines that are kept; `dropped` is how many there were before them.
        bottom: number of the line behind the last one shown; None while it follows.
        query: what is searched for; empty for nothing. Case counts where it has a capital.
        hit: number of the line that was found last.
        typing: what was typed so far of a new search; None while none is typed.
        wrap: long lines go on in the next row instead of being cut off.
        times: the local time stands before each line.
    """

    entries: tuple[Entry, ...] = ()
    dropped: int = 0
    bottom: int | None = None
    query: str = ""
    hit: int | None = None
    typing: str | None = None
    wrap: bool = False
    times: bool = False

    @property
    def end(self) -> int:
        """Number of the line that comes next."""
        return self.dropped + len(self.entries)

    @property
    def follows(self) -> bool:
        """Whether new lines are shown as they come."""
        return self.bottom is None

    @property
    def last(self) -> int:
        """Number of the line behind the last one shown."""
        return self.end if self.bottom is None else min(max(self.bottom, self.dropped), self.end)


def add(pane: Pane, entries: tuple[Entry, ...]) -> Pane:
    """The pane with new lines behind its own; the oldest are forgotten."""
    together = pane.entries + entries
    lost = max(0, len(together) - KEPT)
    return replace(pane, entries=together[lost:], dropped=pane.dropped + lost)


def hold(pane: Pane) -> Pane:
    """The pane as it stands: it follows no more."""
    return pane if pane.bottom is not None else replace(pane, bottom=pane.end)


def press(pane: Pane, key: str, rows: int) -> Pane | None:
    """The pane after a key, where it has `rows` rows; None where the key means nothing here."""
    if pane.typing is not None:
        return _typed(pane, pane.typing, key, rows)
    moves = {"up": -1, "k": -1, "down": 1, "j": 1, "pgup": 1 - rows, "pgdn": rows - 1, " ": rows - 1}
    if key in moves:
        return scroll(pane, moves[key] or (1 if key in {"pgdn", " "} else -1), rows)
    change = _CHANGES.get(key)
    return None if change is None else change(pane, rows)


def _to_top(pane: Pane, rows: int) -> Pane:
    return replace(pane, bottom=min(pane.dropped + rows, pane.end))


def scroll(pane: Pane, lines: int, rows: int) -> Pane:
    """So many lines further down; at the end it follows again."""
    least = min(pane.dropped + max(1, rows), pane.end)
    bottom = max(least, pane.last + lines)
    return replace(pane, bottom=None if bottom >= pane.end and lines > 0 else min(bottom, pane.end))


def _typed(pane: Pane, typing: str, key: str, rows: int) -> Pane:
    match key:
        case "enter":
            sought = replace(pane, typing=None, query=typing, hit=None)
            return find(sought, -1, rows) if typing else sought
        case "escape":
            return replace(pane, typing=None)
        case "backspace":
            return replace(pane, typing=typing[:-1])
        case "ctrl-u":
            return replace(pane, typing="")
    written = len(key) == 1 and key.isprintable()
    return replace(pane, typing=(typing + key)[:_LONGEST_QUERY]) if written else pane


def find(pane: Pane, step: int, rows: int) -> Pane:
    """The next line upwards (-1) or downwards (1) in which the query is found; a pane without one stays as it is.

    A new search begins with the newest line that is shown.
    """
    if not pane.query:
        return pane
    at = pane.last - 1 if pane.hit is None else pane.hit + step
    while pane.dropped <= at < pane.end:
        if _matches(pane.query, _text(pane.entries[at - pane.dropped])):
            bottom = max(min(at + 1 + rows // 2, pane.end), min(pane.dropped + rows, pane.end))
            return replace(pane, hit=at, bottom=bottom)
        at += step
    return pane


def found(pane: Pane) -> int:
    """In how many of the lines the query is found."""
    return sum(_matches(pane.query, _text(entry)) for entry in pane.entries) if pane.query else 0


def _text(entry: Entry) -> str:
    return clean(entry.text)


def _matches(query: str, text: str) -> bool:
    return query in text if query != query.lower() else query in text.lower()


def spots(query: str, text: str) -> Iterator[tuple[int, int]]:
    """Where the query stands in the text, as `(begin, end)`."""
    folded = text if query != query.lower() else text.lower()
    if not query or len(folded) != len(text):  # some letters grow when they are made small
        return
    at = folded.find(query)
    while at >= 0:
        yield at, at + len(query)
        at = folded.find(query, at + len(query))


def pane_lines(pane: Pane, parts: tuple[str, ...], width: int, rows: int) -> list[Line]:
    """Exactly `rows` lines: the newest shown one stands at the bottom."""
    form = Form(parts, times=pane.times)
    shown: list[Line] = []
    for number in range(pane.last - 1, pane.dropped - 1, -1):
        if len(shown) >= rows:
            break
        line = _highlit(pane, number, form.line(pane.entries[number - pane.dropped]))
        shown[:0] = fold(line, width) if pane.wrap else [fit(line, width)]
    shown = shown[len(shown) - rows :] if len(shown) > rows else shown
    return [*shown, *[()] * (rows - len(shown))]


def _highlit(pane: Pane, number: int, line: Line) -> Line:
    *before, text = line
    places = list(spots(pane.query, text.text))
    if not places:
        return line
    current = number == pane.hit and not pane.follows
    head = tuple(Cell(cell.text, "bold") for cell in before) if current else tuple(before)
    return (*head, *marked((text,), places))


def pane_words(pane: Pane) -> Line:
    """What the pane is doing: following, or where it stands, and what is searched for."""
    cells: list[Cell] = []
    if pane.query:
        number = found(pane)
        told = f"{number} of {len(pane.entries)} lines" if number else "nothing found"
        cells += [Cell(f"/{pane.query}  ", "bold"), Cell(f"{told}  ", "" if number else "bad")]
    if pane.follows:
        return (*cells, Cell("follows", "good"))
    return (*cells, Cell(f"line {pane.last} of {pane.end}", "busy"))


#: What a key does to a pane of so many rows.
_CHANGES: Mapping[str, Callable[[Pane, int], Pane]] = {
    "home": _to_top,
    "g": _to_top,
    "end": lambda pane, _rows: replace(pane, bottom=None),
    "G": lambda pane, _rows: replace(pane, bottom=None),
    "f": lambda pane, _rows: hold(pane) if pane.follows else replace(pane, bottom=None),
    "w": lambda pane, _rows: replace(pane, wrap=not pane.wrap),
    "t": lambda pane, _rows: replace(pane, times=not pane.times),
    "/": lambda pane, _rows: replace(pane, typing=""),
    "n": lambda pane, rows: find(pane, -1, rows),
    "N": lambda pane, rows: find(pane, 1, rows),
}
