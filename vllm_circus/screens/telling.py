"""The monitors as lines, for a screen reader or a file: what changed, and the new log lines. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from vllm_circus.bus.messages import CountsMessage, ModelCounts, ModelState
from vllm_circus.lifecycle.states import State
from vllm_circus.logline import clean
from vllm_circus.screens.pane import Pane
from vllm_circus.screens.proxyview import first_token, many_requests
from vllm_circus.screens.state import OVERVIEW, PROXY, Monitor
from vllm_circus.view.logs import Entry, Form
from vllm_circus.view.status import Picture
from vllm_circus.view.table import Cell, Line
from vllm_circus.view.units import counted, rate

#: Seconds between two words on the traffic.
_TRAFFIC_EVERY = 10
#: Log lines that are told at the beginning.
_FIRST = 10


def tell(before: Monitor, after: Monitor) -> Iterator[Line]:
    """What is new."""
    if before.picture is None and after.picture is not None:
        yield _line("shown line by line; Enter or Ctrl-C leaves")
        yield _line(f"proxy on {after.picture.outline.url}")
    if after.gone and not before.gone:
        yield _line("the set does not run any more")
    if after.picture is not None:
        yield from _states(before.picture, after.picture, _names(after))
        if int(before.now) // _TRAFFIC_EVERY != int(after.now) // _TRAFFIC_EVERY:
            yield from _traffic(after.picture.counts, _names(after))
    form = Form(after.parts)
    new = _new(before.panes.get(after.place, Pane()), after.pane)
    for entry in new if before.picture else new[-_FIRST:]:
        yield form.line(entry)


def _names(state: Monitor) -> tuple[str, ...]:
    if state.place in {PROXY, OVERVIEW}:
        return tuple(model.name for model in state.models)
    return (state.place,)


def _line(text: str) -> Line:
    return (Cell(text),)


def _states(before: Picture | None, after: Picture, names: tuple[str, ...]) -> Iterator[Line]:
    for name in names:
        now, then = after.state(name), before.state(name) if before else None
        if now is not None and (then is None or state_words(then) != state_words(now)):
            yield _line(f"{name}: {state_words(now)}")


def state_words(told: ModelState) -> str:
    """The state with its phase, or why it is so and what to do."""
    detail = told.phase if told.state is State.LOADING else told.reason.partition("; next try in")[0]
    fix = f"; {told.fix}" if told.fix and told.state is not State.READY else ""
    return clean(f"{told.state}{f' ({detail})' if detail else ''}{fix}")


def _traffic(counts: CountsMessage | None, names: tuple[str, ...]) -> Iterator[Line]:
    """A sentence on every model that does something."""
    if counts is None:
        return
    for name in names:
        model = counts.models.get(name, ModelCounts())
        speed = counts.token_rate.get(name, 0.0)
        if model.in_flight or model.waiting or speed or counts.request_rate.get(name):
            yield _line(
                f"{name}: {model.in_flight} in flight, {model.waiting} waiting, {rate(speed)} tokens/s, first token "
                f"{first_token(counts, name, 0.5)}, {many_requests(model.requests)}, {counted(model.errors, 'error')}"
            )


def _new(before: Pane, after: Pane) -> tuple[Entry, ...]:
    return after.entries[max(0, before.end - after.dropped) :]
