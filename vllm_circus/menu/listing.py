"""A list on the terminal, as data: what is shown of it, where the pointer stands, what is chosen, what was typed.

Pure: `terminal.py` turns keys into calls and lines into a screen. Rules: the pointer may stand on what is barred, so
that the reason can be read, and Enter then says it; whatever does not fit is cut, and told in full below the list for
the entry that the pointer stands on; a list is never higher than the screen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from prompt_toolkit.utils import get_cwidth

from vllm_circus.logline import clean
from vllm_circus.menu.ask import Choice, Heading

Fragment = tuple[str, str]
Fragments = list[Fragment]

_BETWEEN = "   "
_KEYS_CHOOSE = "Enter: choose   Esc: back   type: filter"
_KEYS_PICK = "Space: on/off   Enter: done   Esc: back   type: filter"
_KEYS_FILTER = "Enter: choose   Esc: all again"
_KEYS_PICK_FILTER = "Space: on/off   Enter: done   Esc: all again"


@dataclass(frozen=True)
class Listing:
    """A question with its choices in one moment.

    Attributes:
        entries: choices and headings, in order.
        many: several may be chosen; then `chosen` has their positions.
        pointer: position in `entries` of the choice that the pointer stands on.
        filter: what was typed; only entries with it are shown.
        complaint: why the last answer was none, until the next key.
    """

    title: str
    entries: tuple[Choice[Any] | Heading, ...]
    many: bool
    pointer: int
    chosen: frozenset[int] = frozenset()
    filter: str = ""
    complaint: str = ""

    @property
    def shown(self) -> tuple[int, ...]:
        """Positions of what the filter leaves: what is called so, else what is described so; no headings then."""
        if not self.filter:
            return tuple(range(len(self.entries)))
        wanted = self.filter.casefold()
        called = tuple(position for position, choice in self._choices() if wanted in choice.label.casefold())
        return called or tuple(position for position, choice in self._choices() if wanted in _described(choice))

    @property
    def present(self) -> Choice[Any] | None:
        """The choice under the pointer; None where the filter leaves none."""
        entry = self.entries[self.pointer] if self.pointer in self.shown else None
        return entry if isinstance(entry, Choice) else None

    @property
    def picked(self) -> list[Any]:
        """The values that are chosen, in the order of the list."""
        return [choice.value for position, choice in self._choices() if position in self.chosen]

    @property
    def labels(self) -> list[str]:
        """What is chosen, by its labels."""
        return [choice.label for position, choice in self._choices() if position in self.chosen]

    def moved(self, step: int, *, around: bool = True) -> Listing:
        """The pointer some choices further; past the end it comes out at the other one, unless `around` is false."""
        places = [position for position in self.shown if isinstance(self.entries[position], Choice)]
        if not places:
            return replace(self, complaint="")
        now = places.index(self.pointer) if self.pointer in places else 0
        target = (now + step) % len(places) if around else min(max(now + step, 0), len(places) - 1)
        return replace(self, pointer=places[target], complaint="")

    def typed(self, text: str) -> Listing:
        """With another filter; the pointer goes to what begins so, else to what is left where its own is gone."""
        found = replace(self, filter=text, complaint="")
        left = [(place, choice.label) for place, choice in self._choices() if place in found.shown]
        begins = [place for place, label in left if text and label.casefold().startswith(text.casefold())]
        places = begins or [place for place, _ in left]
        if places and found.pointer not in places:
            return replace(found, pointer=places[0])
        return found

    def toggled(self) -> Listing:
        """The choice under the pointer on or off; a barred one says why not."""
        choice = self.present
        if choice is None:
            return self
        if choice.barred:
            return replace(self, complaint=refusal(choice))
        return replace(self, chosen=self.chosen ^ {self.pointer}, complaint="")

    def _choices(self) -> Iterator[tuple[int, Choice[Any]]]:
        for position, entry in enumerate(self.entries):
            if isinstance(entry, Choice):
                yield position, entry


def make_listing(
    title: str,
    entries: Sequence[Choice[Any] | Heading],
    *,
    many: bool,
    default: object = None,
    chosen: Sequence[object] = (),
) -> Listing:
    """A question as it is first shown: the pointer on the default, or on the first that can be chosen."""
    places = [position for position, entry in enumerate(entries) if isinstance(entry, Choice)]
    if not places:
        raise ValueError("a list without choices")

    def value(position: int) -> object:
        entry = entries[position]
        return entry.value if isinstance(entry, Choice) else None

    def open_(position: int) -> bool:
        entry = entries[position]
        return isinstance(entry, Choice) and not entry.barred

    start = next((p for p in places if default is not None and value(p) == default), None)
    start = start if start is not None else next(filter(open_, places), places[0])
    on = frozenset(p for p in places if open_(p) and value(p) in chosen)
    return Listing(clean_lines(title), tuple(entries), many, start, on)


def clean_lines(text: str) -> str:
    """Text without terminal control, its line ends kept."""
    return "\n".join(map(clean, text.split("\n")))


def draw(listing: Listing, columns: int, rows: int, explanation: str = "") -> Iterator[Fragments]:
    """The lines of the screen: the question, the part of the list around the pointer, what has to be said below."""
    width = max(columns - 1, 12)
    head = list(_head(listing, width))[-max(rows // 3, 1) :]
    foot = list(_foot(listing, width, explanation, max(rows // 3 - 1, 1)))
    room = max(rows - 1 - len(head) - len(foot), 1)
    yield from head
    yield from _body(listing, width, room)
    yield from foot


def _head(listing: Listing, width: int) -> Iterator[Fragments]:
    *above, question = listing.title.split("\n")
    for line in above:
        yield from ([("", part)] for part in wrapped(line, width) or [""])
    for number, part in enumerate(wrapped(question, width - 2)):
        yield [("class:qmark", "? " if number == 0 else "  "), ("class:question", part)]
    if listing.filter:
        yield [("class:key", "  with: "), ("class:answer", cut(listing.filter, width - 8))]


def _foot(listing: Listing, width: int, explanation: str, most: int) -> Iterator[Fragments]:
    if listing.complaint:
        said = [("class:complaint", line) for line in wrapped(listing.complaint, width - 2)]
    else:
        said = [("class:detail", line) for line in wrapped(_detail(listing, width), width - 2)]
        said += [("class:explanation", line) for line in wrapped(clean(explanation), width - 2)]
    for style, line in said[: max(most, 1)]:
        yield [(style, f"  {line}")]
    if most > 2:
        keys = _KEYS_PICK if listing.many else _KEYS_CHOOSE
        filtering = _KEYS_PICK_FILTER if listing.many else _KEYS_FILTER
        yield [("class:key", f"  {_whole(filtering if listing.filter else keys, width - 2)}")]


def _whole(keys: str, width: int) -> str:
    """As many of the keys as have room, the first ones; a key is told whole or not at all."""
    told = keys.split(_BETWEEN)
    while len(told) > 1 and get_cwidth(_BETWEEN.join(told)) > width:
        del told[-1]
    return cut(_BETWEEN.join(told), width)


def _body(listing: Listing, width: int, room: int) -> Iterator[Fragments]:
    places = listing.shown
    if not places:
        yield [("class:key", cut("  nothing is called so", width))]
        return
    if len(places) <= room:
        first, last = 0, len(places)
    else:
        room = max(room - 2, 1)
        at = places.index(listing.pointer) if listing.pointer in places else 0
        first = min(max(at - room // 2, 0), len(places) - room)
        last = first + room
    label = _label_width(listing, width)
    if first or last < len(places):
        yield [("class:key", cut(f"  {first} more above", width) if first else "")]
    for position in places[first:last]:
        yield _row(listing, position, label, width)
    if first or last < len(places):
        below = len(places) - last
        yield [("class:key", cut(f"  {below} more below", width) if below else "")]


def _row(listing: Listing, position: int, label: int, width: int) -> Fragments:
    entry = listing.entries[position]
    if isinstance(entry, Heading):
        return [("class:heading", cut(f"  {clean(entry.text)}:", width))]
    here = position == listing.pointer
    box = ("[x] " if position in listing.chosen else "[ ] ") if listing.many else ""
    box = "    " if box and entry.barred else box
    style = "class:barred" if entry.barred else "class:pointed" if here else "class:label"
    hint = clean(entry.barred or entry.hint)
    row: Fragments = [("class:pointer", "> " if here else "  "), (style, box)]
    if not hint:
        return [*row, (style, cut(_shown_label(entry), width - 2 - len(box)))]
    text = cut(_shown_label(entry), label)
    left = width - 2 - len(box) - label - 2
    return [*row, (style, padded(text, label)), ("class:hint", f"  {cut(hint, left)}" if left > 3 else "")]


def _detail(listing: Listing, width: int) -> str:
    """What the row under the pointer had no room for."""
    choice = listing.present
    if choice is None:
        return ""
    box, label, hint = 4 if listing.many else 0, clean(choice.label), clean(choice.barred or choice.hint)
    room = _label_width(listing, width)
    wide = get_cwidth(label) > (room if hint else width - 2 - box)
    if wide or (hint and get_cwidth(hint) > width - 4 - box - room):
        return f"{label}: {hint}" if wide and hint else hint or label
    return ""


def _label_width(listing: Listing, width: int) -> int:
    """Columns of the labels that have something beside them; at most half of the line."""
    hinted = [_shown_label(entry) for _, entry in listing._choices() if entry.hint or entry.barred]  # noqa: SLF001 - the same module
    return min(max(map(get_cwidth, hinted), default=0), max(width // 2, 8))


def refusal(choice: Choice[Any]) -> str:
    """Why it cannot be chosen, as it is told to whoever tries; empty where it can."""
    return f"not available: {clean(choice.barred)}" if choice.barred else ""


def _shown_label(choice: Choice[Any]) -> str:
    """In brackets where it cannot be chosen: colour alone is not for everybody."""
    return f"({clean(choice.label)})" if choice.barred else clean(choice.label)


def _described(choice: Choice[Any]) -> str:
    return f"{choice.hint} {choice.barred}".casefold()


def cut(text: str, width: int) -> str:
    """At most so many columns of it; what is left out is told by dots."""
    if get_cwidth(text) <= width:
        return text
    return f"{_beginning(text, width - 3)}..." if width > 4 else "..."[: max(width, 0)]


def padded(text: str, width: int) -> str:
    """Filled up with blanks to so many columns."""
    return text + " " * (width - get_cwidth(text))


def wrapped(text: str, width: int) -> list[str]:
    """Lines of at most so many columns, broken between words where there are any; none for no text."""
    lines, line = [], ""
    for word in text.split():
        longer = f"{line} {word}" if line else word
        if get_cwidth(longer) <= width:
            line = longer
            continue
        lines += [line] if line else []
        line = word
        while get_cwidth(line) > max(width, 2):
            kept = _beginning(line, max(width, 2))
            lines.append(kept)
            line = line[len(kept) :]
    return [*lines, line] if line else lines


def _beginning(text: str, width: int) -> str:
    """As much of it as has room in so many columns, at least one character."""
    used = 0
    for position, char in enumerate(text):
        used += get_cwidth(char)
        if used > width:
            return text[: max(position, 1)]
    return text
