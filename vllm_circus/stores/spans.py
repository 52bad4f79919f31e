"""Where in a YAML text each value stands: what an edit needs that leaves every other byte alone.

Built from PyYAML's events, so an alias is a value of its own here and not what it names. Positions are characters
from the beginning of the text; a value ends where its last character does, comments behind it not counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import yaml


@dataclass(frozen=True)
class Span:
    """One value: where it stands, and its parts.

    Attributes:
        column: of a block's first key or dash; of anything else where it begins.
        flow: it stands in braces or brackets.
    """

    kind: Literal["scalar", "alias", "map", "seq"]
    start: int
    end: int
    column: int
    flow: bool = False
    text: str = ""
    items: tuple[Span, ...] = ()
    pairs: tuple[tuple[Span, Span], ...] = field(default=(), repr=False)

    def value(self, key: str) -> Span | None:
        """The value of a key that is written here, and not merged in."""
        return next((value for name, value in self.pairs if name.text == key), None)


def find_spans(text: str) -> Span:
    """The spans of the one document in `text`, which has been parsed without a fault before."""
    events = iter(yaml.parse(text, Loader=yaml.SafeLoader))
    for event in events:
        if isinstance(event, yaml.DocumentStartEvent):
            return _span(next(events), events, text)
    return Span("scalar", 0, 0, 0)


def _span(event: yaml.Event, events: Iterator[yaml.Event], text: str) -> Span:
    start, end, column = _marks(event)
    if isinstance(event, yaml.AliasEvent):
        return Span("alias", start, end, column)
    if isinstance(event, yaml.ScalarEvent):
        block = event.style in {"|", ">"}  # such a one ends where the next thing begins
        return Span("scalar", start, len(text[:end].rstrip()) if block else end, column, text=event.value)
    flow = bool(getattr(event, "flow_style", False))
    parts: list[Span] = []
    for part in events:
        if isinstance(part, yaml.SequenceEndEvent | yaml.MappingEndEvent):
            end = _marks(part)[1] if flow or not parts else parts[-1].end
            break
        parts.append(_span(part, events, text))
    if isinstance(event, yaml.SequenceStartEvent):
        return Span("seq", start, end, column, flow, items=tuple(parts))
    pairs = tuple(zip(parts[::2], parts[1::2], strict=True))
    return Span("map", start, end, column if flow or not pairs else pairs[0][0].column, flow, pairs=pairs)


def _marks(event: yaml.Event) -> tuple[int, int, int]:
    """Where an event begins and ends, and the column of its beginning."""
    assert event.start_mark is not None  # noqa: S101 - the stubs allow for events that nobody parsed
    assert event.end_mark is not None  # noqa: S101 - as above
    return event.start_mark.index, event.end_mark.index, event.start_mark.column
