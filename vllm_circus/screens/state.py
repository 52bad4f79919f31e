"""The monitors as data: what is known of the set, which view is looked at, and what a key changes. Pure.

The views stand in a ring: the proxy, all models, and each model alone. A paused screen shows the picture of the
moment in which it was paused; what comes meanwhile is kept, and shown afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from vllm_circus.bus.messages import CountsMessage, ModelsMessage
from vllm_circus.screens.events import Event, Gone, Key, Logged, Planned, Said, Size, Tick
from vllm_circus.screens.pane import Pane, add, hold, press
from vllm_circus.view.logs import Entry
from vllm_circus.view.outline import Outline, OutlineModel
from vllm_circus.view.status import Picture

PROXY = "proxy"
OVERVIEW = "all"
_LEAVING = frozenset({"q", "Q", "escape"})
_STEPS = {"tab": 1, "backtab": -1}
_MODEL_STEPS = {"right": 1, "left": -1}


@dataclass(frozen=True)
class Monitor:
    """Everything that the monitors show.

    Attributes:
        control: circusd's endpoint.
        place: the view that is shown: PROXY, OVERVIEW, or the name of an engine.
        only: the engines that the models' views are about; empty for every one.
        picture: the last words of the set; None before the plan is known.
        held: what is shown instead while it is paused.
        panes: the log of each place.
        followed: the places whose log followed when it was paused.
        keys_shown: the keys are explained; log_shown: the log is not hidden.
        gone: the set does not run any more.
        left: somebody left the screen.
    """

    control: str
    place: str = PROXY
    only: tuple[str, ...] = ()
    picture: Picture | None = None
    held: Picture | None = None
    panes: Mapping[str, Pane] = field(default_factory=dict)
    followed: frozenset[str] = frozenset()
    size: tuple[int, int] = (80, 24)
    now: float = 0.0
    keys_shown: bool = False
    log_shown: bool = True
    gone: bool = False
    left: bool = False

    @property
    def shown(self) -> Picture | None:
        """What is to be shown."""
        return self.held or self.picture

    @property
    def pane(self) -> Pane:
        """The log that is shown."""
        return self.panes.get(self.place, Pane())

    @property
    def models(self) -> tuple[OutlineModel, ...]:
        """The engines that the models' views are about."""
        return chosen(self.shown.outline, self.only) if self.shown else ()

    @property
    def places(self) -> tuple[str, ...]:
        """The ring of views."""
        return PROXY, OVERVIEW, *(model.name for model in self.models)

    @property
    def parts(self) -> tuple[str, ...]:
        """Whose log is shown."""
        if self.place == OVERVIEW:
            return tuple(model.name for model in self.models)
        return (self.place,)


def chosen(outline: Outline, only: tuple[str, ...]) -> tuple[OutlineModel, ...]:
    """The engines of these names, or all of them."""
    return tuple(model for model in outline.models if not only or model.name in only)


def after(state: Monitor, event: Event, rows: int) -> Monitor:
    """The state after an event; the log that is shown has `rows` rows."""
    match event:
        case Key(name):
            return _pressed(state, name, rows)
        case Size(width, height):
            return replace(state, size=(width, height))
        case Logged(entries):
            return replace(state, panes=_sorted_in(state, entries))
        case Planned():
            return _planned(state, event)
    return _heard(state, event)


def _heard(state: Monitor, event: Gone | Said | Tick | ModelsMessage | CountsMessage) -> Monitor:
    picture, now = state.picture, state.now
    if isinstance(event, Tick):
        now = event.now
    elif picture is not None and isinstance(event, ModelsMessage):
        picture = replace(picture, models=event)
    elif picture is not None and isinstance(event, CountsMessage):
        picture = replace(picture, counts=event)
    gone = state.gone or isinstance(event, Gone)
    return replace(state, now=now, picture=replace(picture, now=now) if picture else None, gone=gone)


def _planned(state: Monitor, event: Planned) -> Monitor:
    picture = Picture(event.outline, state.control, event.daemon, state.now, began=event.began)
    if state.picture is not None and state.picture.daemon == event.daemon:  # reloaded: what was told still counts
        picture = replace(picture, models=state.picture.models, counts=state.picture.counts)
    state = replace(state, picture=picture, gone=False)
    return state if state.place in state.places else replace(state, place=OVERVIEW)


def _sorted_in(state: Monitor, entries: tuple[Entry, ...]) -> Mapping[str, Pane]:
    """The panes with new lines in those that they belong to."""
    panes = dict(state.panes)
    by_part: dict[str, list[Entry]] = {}
    for entry in entries:
        by_part.setdefault(entry.part, []).append(entry)
    for part, some in by_part.items():
        panes[part] = add(panes.get(part, Pane()), tuple(some))
    wanted = tuple(entry for entry in entries if entry.part != PROXY and (not state.only or entry.part in state.only))
    if wanted:
        panes[OVERVIEW] = add(panes.get(OVERVIEW, Pane()), wanted)
    return panes


def _pressed(state: Monitor, key: str, rows: int) -> Monitor:
    if state.keys_shown:
        return replace(state, keys_shown=False)
    if (pane := _in_pane(state, key, rows)) is not None:
        return replace(state, panes={**state.panes, state.place: pane})
    if key in _LEAVING:
        return replace(state, left=True)
    if key == "p":
        return _paused(state)
    if key in {"?", "l"}:
        return replace(state, keys_shown=key == "?", log_shown=state.log_shown != (key == "l"))
    return _moved(state, key)


def _in_pane(state: Monitor, key: str, rows: int) -> Pane | None:
    return press(state.pane, key, rows) if state.log_shown or state.pane.typing is not None else None


def _paused(state: Monitor) -> Monitor:
    if state.held is None:
        followed = frozenset(place for place, pane in state.panes.items() if pane.follows)
        held = {place: hold(pane) for place, pane in state.panes.items()}
        return replace(state, held=state.picture, panes=held, followed=followed)
    panes = {
        place: replace(pane, bottom=None) if place in state.followed else pane for place, pane in state.panes.items()
    }
    return replace(state, held=None, panes=panes)


def _moved(state: Monitor, key: str) -> Monitor:
    """Another view: Tab goes round all of them, the arrows from model to model."""
    if key in _STEPS:
        ring, step = state.places, _STEPS[key]
    elif key in _MODEL_STEPS:
        ring, step = state.places[1:], _MODEL_STEPS[key]
    else:
        return state
    at = ring.index(state.place) if state.place in ring else (-1 if step > 0 else 0)
    return replace(state, place=ring[(at + step) % len(ring)])
