"""The monitors: the proxy with its log, and the models with theirs, on one screen that Tab turns over.

`show_proxy` and `show_models` return when the person leaves. They raise NotRunning, with a hint, where nothing runs;
a set that ends meanwhile is told on the screen. Where no screen can be drawn, or none is wanted (`plain`, without
which the setting of that name counts), what changes is written line by line.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

from vllm_circus.paths import Instance
from vllm_circus.screens.canvas import apart, fit, fits_rule, frame, rule
from vllm_circus.screens.events import Event, Key, Logged, Planned
from vllm_circus.screens.feed import Feed, need_set
from vllm_circus.screens.help import MONITOR_KEYS, help_lines, key_line
from vllm_circus.screens.mode import draws
from vllm_circus.screens.modelsview import model_head, overview_head
from vllm_circus.screens.pane import pane_lines, pane_words
from vllm_circus.screens.proxyview import proxy_head
from vllm_circus.screens.runner import Source, View, run
from vllm_circus.screens.state import OVERVIEW, PROXY, Monitor, after, chosen
from vllm_circus.screens.telling import tell
from vllm_circus.view.outline import Outline
from vllm_circus.view.status import Picture
from vllm_circus.view.table import Cell, Line

#: Log lines of a picture that is printed once, and lines above them at most.
_ONCE_LOG, _ONCE_ROWS = 10, 100
_LEAST_LOG = 4  # rows, its title included
_PAUSED = Cell("paused", "busy")


def show_proxy(instance: Instance, *, plain: bool | None = None) -> None:
    """The proxy's monitor. Raises NotRunning where nothing runs."""
    _show(instance, need_set(instance), PROXY, (), plain=plain)


def show_models(instance: Instance, model: str | None = None, *, plain: bool | None = None) -> None:
    """The models' monitor: all of them, or one by its name. Raises NotRunning where nothing runs."""
    show_some(instance, (model,) if model else (), plain=plain)


def show_some(instance: Instance, names: tuple[str, ...], *, plain: bool | None = None) -> None:
    """The monitor of some models, replicas of a model all of them; of every one without names."""
    planned = need_set(instance)
    engines = engines_of(planned.outline, names)
    _show(instance, planned, place_of(engines), engines if len(engines) > 1 else (), plain=plain)


def engines_of(outline: Outline, names: tuple[str, ...]) -> tuple[str, ...]:
    """The engines that names stand for; a name that is none stands for nothing."""
    return tuple(dict.fromkeys(engine.name for name in names for engine in outline.engines(name)))


def place_of(engines: tuple[str, ...]) -> str:
    """Where the monitor of these begins."""
    return engines[0] if len(engines) == 1 else OVERVIEW


def _show(instance: Instance, planned: Planned, place: str, only: tuple[str, ...], *, plain: bool | None) -> None:
    view = View(update, render, lambda state: state.left, tell)
    with closing(Feed(instance, planned, lambda outline: parts_of(outline, only))) as feed:
        run(view, Monitor(instance.control, place, only), Source(instance, feed), full=draws(instance, plain))


def once_lines(instance: Instance, picture: Picture, names: tuple[str, ...], width: int) -> list[Line]:
    """One picture of the proxy, or of the models of these names, with the last lines of its log."""
    engines = engines_of(picture.outline, names)
    place = place_of(engines) if names else PROXY
    state = Monitor(instance.control, place, engines if len(engines) > 1 else (), picture=picture, now=picture.now)
    with closing(
        Feed(instance, Planned(picture.outline, picture.daemon, picture.began), lambda _: state.parts)
    ) as feed:
        for event in feed.first():
            state = after(state, event, _ONCE_LOG) if isinstance(event, Logged) else state
    log = pane_lines(state.pane, state.parts, width, min(_ONCE_LOG, len(state.pane.entries)))
    return [*_view_head(state, width, _ONCE_ROWS), _log_title(state, width), *log]


def parts_of(outline: Outline, only: tuple[str, ...]) -> tuple[str, ...]:
    """The logs that the monitors need."""
    return (PROXY, *(model.name for model in chosen(outline, only)))


def update(state: Monitor, event: Event) -> Monitor:
    """The state after an event."""
    return after(state, event, log_rows(state) if isinstance(event, Key) else 0)


def log_rows(state: Monitor) -> int:
    """How many lines of the log there is room for."""
    width, height = state.size
    return max(1, height - len(head_lines(state, width, height)) - 2)


def render(state: Monitor, width: int, height: int) -> list[Line]:
    """The screen: what there is to know above, the log below, and at the bottom the keys."""
    if state.keys_shown:
        return frame(help_lines(MONITOR_KEYS, width), width, height)
    head = head_lines(state, width, height)
    rows = max(0, height - len(head) - 2)
    if not state.log_shown:
        return frame([*frame(head, width, height - 1), _bottom(state, width)], width, height)
    log = pane_lines(state.pane, state.parts, width, rows) if rows else []
    return frame([*head, _log_title(state, width), *log, _bottom(state, width)], width, height)


def head_lines(state: Monitor, width: int, height: int) -> list[Line]:
    """What stands above the log: at most what leaves the log its least."""
    rows = height - 1 - (_LEAST_LOG + height // 4 if state.log_shown else 0)
    most = max(1, height - (4 if state.log_shown else 1))
    return [*_news(state, width), *_view_head(state, width, max(3, rows))][:most]


def _view_head(state: Monitor, width: int, rows: int) -> list[Line]:
    picture = state.shown
    if picture is None:
        return [(Cell("waiting for the set", "busy"),)]
    if state.place == PROXY:
        return proxy_head(picture, width, rows)
    model = picture.outline.model(state.place)
    return model_head(picture, model, width, rows) if model else overview_head(picture, state.models, width, rows)


def _news(state: Monitor, width: int) -> Iterator[Line]:
    if state.gone:
        yield fit((Cell("the set does not run any more: this is how it was", "bad"),), width)


def _log_title(state: Monitor, width: int) -> Line:
    """The log's name, and what it does: all of that, or what matters most of it."""
    name = "models" if state.place == OVERVIEW else state.place
    title: Line = (Cell(f"log of {name}", "bold"),)
    words = pane_words(state.pane)
    ways = ((Cell("paused  ", "busy"), *words), (_PAUSED,)) if state.held else (words, words[-1:])
    right = next((way for way in ways if fits_rule(title, way, width)), ())
    if state.held and not right:
        title = (_PAUSED, Cell("  "), *title)
    return rule(title, right, width)


def _bottom(state: Monitor, width: int) -> Line:
    if state.held and not state.log_shown:
        return fit((_PAUSED, Cell("  "), *key_line(MONITOR_KEYS, width - 8)), width)
    if (typing := state.pane.typing) is not None:
        return fit((Cell("search: ", "bold"), Cell(typing), Cell(" ", "mark")), width)
    if len(state.places) > 1 and width >= 60:
        views = f"{state.places.index(state.place) + 1}/{len(state.places)}" if state.place in state.places else ""
        return apart(key_line(MONITOR_KEYS, width - 6), (Cell(views, "dim"),), width)
    return key_line(MONITOR_KEYS, width)
