"""Pictures as text, and states to draw."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from tests.view.pictures import CONTROL, COUNTS, MODELS, NOW, OUTLINE
from vllm_circus.bus.messages import ModelState
from vllm_circus.screens import monitor
from vllm_circus.screens.canvas import width_of
from vllm_circus.screens.events import Event, Key, Logged, Planned, Size, Tick
from vllm_circus.screens.starting import Startup
from vllm_circus.screens.starting import after as started
from vllm_circus.screens.state import Monitor
from vllm_circus.view.logs import Entry
from vllm_circus.view.table import Line, paint

BEGAN = datetime.fromtimestamp(NOW, UTC)


def text(lines: Iterable[Line]) -> list[str]:
    return [paint(line, colour=False) for line in lines]


def entries(part: str, *texts: str, first: int = 0) -> tuple[Entry, ...]:
    return tuple(Entry(BEGAN + timedelta(seconds=first + at), part, "O", each) for at, each in enumerate(texts))


def numbered(number: int, part: str = "proxy") -> tuple[Entry, ...]:
    return entries(part, *(f"line {at}" for at in range(number)))


def watching(place: str = "proxy", *events: Event, size: tuple[int, int] = (80, 24)) -> Monitor:
    """The monitor of the set of `tests.view.pictures`, after these events."""
    state = Monitor(CONTROL, place)
    known = (Size(*size), Tick(NOW), Planned(OUTLINE, 100, NOW - 4000), MODELS, COUNTS)
    return feed(state, *known, *events)


def feed(state: Monitor, *events: Event) -> Monitor:
    for event in events:
        state = monitor.update(state, event)
    return state


def keys(*names: str) -> tuple[Key, ...]:
    return tuple(map(Key, names))


def typed(words: str) -> tuple[Key, ...]:
    return keys(*words)


def shown(state: Monitor) -> list[str]:
    """The screen as text, proved to fit."""
    width, height = state.size
    lines = monitor.render(state, width, height)
    check_fits(lines, width, height)
    return text(lines)


def check_fits(lines: Sequence[Line], width: int, height: int) -> None:
    assert len(lines) == height
    assert max(map(width_of, lines)) <= width
    assert not any(ord(character) < 32 for line in lines for cell in line for character in cell.text)


def starting(*events: Event, choices: str = "rc", patience: float | None = 60.0, names: str = "qwen coder") -> Startup:
    state = Startup(tuple(names.split()), frozenset(choices), patience)
    for event in (Tick(NOW), *events):
        state = started(state, event)
    return state


def models(*states: ModelState) -> Event:
    return replace(MODELS, models=states)


def logged(*some: Entry) -> Logged:
    return Logged(some)
