"""The models' views: all of them with a line each, or one with its health, its load and its last crash. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vllm_circus.bus.messages import CountsMessage, ModelCounts, ModelState
from vllm_circus.lifecycle.states import State
from vllm_circus.logline import clean
from vllm_circus.screens.canvas import apart, bar, fit, paragraph
from vllm_circus.screens.progress import load_words, share_of
from vllm_circus.screens.proxyview import cut_table, first_token, many_requests, reasons_of, told_in
from vllm_circus.view.outline import OutlineModel
from vllm_circus.view.status import STYLES, Picture, gpu_text
from vllm_circus.view.table import Cell, Column, Line, Style, layout, spaced
from vllm_circus.view.units import UNKNOWN, counted, duration, rate

#: Drop order where the terminal is narrow: the highest rank goes first.
COLUMNS = (
    Column("NAME"),
    Column("STATE"),
    Column("FOR", number=True, rank=4),
    Column("HEALTH", rank=2),
    Column("IN-FLIGHT", number=True, rank=3),
    Column("TOK/s", number=True, rank=5),
    Column("PHASE", rank=1),
)
_BAR = 30
_LONGEST = 2  # lines of a reason, and of what to do about it


def overview_head(picture: Picture, models: Sequence[OutlineModel], width: int, rows: int) -> list[Line]:
    """A line per model; what has no room is counted."""
    title = apart((Cell("models ", "bold"), Cell(_in_short(picture, models))), (), width)
    table = list(_table(picture, models, width))
    reasons = told_in(list(reasons_of(picture, models)), width, rows - len(table) - 1)
    return [title, *cut_table(table, max(3, rows - 1)), *reasons]


def _in_short(picture: Picture, models: Sequence[OutlineModel]) -> str:
    states = [told.state for model in models if (told := picture.state(model.name))]
    parts = [f"{states.count(state)} {state}" for state in State if state in states]
    return ", ".join(parts) or "no word of the health plugin yet"


def _table(picture: Picture, models: Sequence[OutlineModel], width: int) -> Iterator[Line]:
    return map(spaced, layout(COLUMNS, [_row(picture, model) for model in models], width))


def _row(picture: Picture, model: OutlineModel) -> Line:
    told = picture.state(model.name)
    if told is None:
        return Cell(model.name, "bold"), Cell("unknown", "bad"), *[Cell(UNKNOWN)] * 4, Cell("")
    counts = picture.counts
    flight = counts.models.get(model.name, ModelCounts()).in_flight if counts else None
    health, style = health_words(told, picture.now)
    return (
        Cell(model.name, "bold"),
        Cell(str(told.state), STYLES.get(told.state, "busy")),
        Cell(duration(picture.now - told.since_at) if told.since_at else UNKNOWN),
        Cell(health, style),
        Cell(UNKNOWN if flight is None else str(flight)),
        Cell(rate(counts.token_rate.get(model.name, 0.0)) if counts else UNKNOWN),
        Cell(load_words(told, picture.now)),
    )


def health_words(told: ModelState, now: float) -> tuple[str, Style]:
    """What the probes say, in a few words, and how good that is."""
    if told.pid is None:
        return UNKNOWN, ""
    if told.failures:
        return f"{counted(told.failures, 'probe')} failed", "bad"
    if told.probed_at is None:
        return ("ok", "good") if told.state is State.READY else ("no answer yet", "busy")
    return f"ok {duration(now - told.probed_at)} ago", "good"


def model_head(picture: Picture, model: OutlineModel, width: int, rows: int) -> list[Line]:
    """Everything above one model's log; the least important lines go where there is no room."""
    told = picture.state(model.name)
    lines = [_title(model, told, picture, width)]
    if told is None:
        return [*lines, (Cell("no word of the health plugin yet", "busy"),)]
    lines += [_place(model, told), *_loading(told, picture.now, width), _health(told, picture.now)]
    lines += [_traffic(picture.counts, model.name), *_trouble(picture, told, width)]
    return [fit(line, width) for line in lines][: max(2, rows)]


def _title(model: OutlineModel, told: ModelState | None, picture: Picture, width: int) -> Line:
    state = Cell(str(told.state), STYLES.get(told.state, "busy")) if told else Cell("unknown", "bad")
    since = f" for {duration(picture.now - told.since_at)}" if told and told.since_at else ""
    return apart((Cell(f"{model.name} ", "bold"), state, Cell(since)), (Cell(clean(model.model), "dim"),), width)


def _place(model: OutlineModel, told: ModelState) -> Line:
    names = ", ".join(model.names)
    process = f"  process {told.pid}" if told.pid is not None else ""
    return (
        Cell("where    ", "dim"),
        Cell(f"{model.address or f'port {model.port}'}  GPU {gpu_text(model.gpus)}{process}"),
        Cell(f"  as {clean(names)}"),
    )


def _loading(told: ModelState, now: float, width: int) -> Iterator[Line]:
    if told.state in {State.LOADING, State.WAKING, State.QUEUED}:
        share = share_of(told, now)
        drawn = bar(share, min(_BAR, max(4, width // 4)), "busy") if share is not None else ()
        yield Cell("load     ", "dim"), *drawn, Cell(f" {load_words(told, now)}" if drawn else load_words(told, now))


def _health(told: ModelState, now: float) -> Line:
    words, style = health_words(told, now)
    last = f", last good probe {duration(now - told.probed_at)} ago" if told.failures and told.probed_at else ""
    return Cell("health   ", "dim"), Cell(words, style), Cell(f"{last}  {_restarts(told, now)}")


def _restarts(told: ModelState, now: float) -> str:
    again = f"restarted {counted(told.restarts, 'time')}" if told.restarts else "not restarted"
    up = f", up {duration(now - told.started_at)}" if told.started_at is not None else ""
    return again + up


def _traffic(counts: CountsMessage | None, name: str) -> Line:
    if counts is None:
        return Cell("traffic  ", "dim"), Cell("no word of the stats plugin yet", "busy")
    model = counts.models.get(name, ModelCounts())
    return (
        Cell("traffic  ", "dim"),
        Cell(
            f"{model.in_flight} in flight  {model.waiting} waiting  {rate(counts.token_rate.get(name, 0.0))} tokens/s"
        ),
        Cell(f"  {many_requests(model.requests)}"),
        Cell(f"  {counted(model.errors, 'error')}" if model.errors else "", "bad"),
        Cell(f"  first token {first_token(counts, name, 0.5)}, p95 {first_token(counts, name, 0.95)}"),
    )


def _trouble(picture: Picture, told: ModelState, width: int) -> Iterator[Line]:
    """Why it is not ready, and its last crash, with what to do."""
    crash, over = told.crash, told.state is State.READY
    if told.reason and (crash is None or told.reason != crash.why.cause):
        yield from _said("reason   ", told.reason, STYLES.get(told.state, "busy"), width)
    if told.fix and crash is None:
        yield from _said("fix      ", told.fix, "good", width)
    if crash is None:
        return
    ago = f"{duration(picture.now - crash.at)} ago: "
    yield from _said("crash    ", ago + crash.why.cause, "" if over else "bad", width)
    if crash.why.fix:
        yield from _said("fix      ", crash.why.fix, "" if over else "good", width)
    if not over:
        yield Cell("more     ", "dim"), Cell(picture.outline.command(f"why {told.name}"))


def _said(title: str, text: str, style: Style, width: int) -> list[Line]:
    return paragraph(Cell(title, "dim"), Cell(clean(text), style), width, _LONGEST)
