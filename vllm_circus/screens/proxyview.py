"""The proxy's view: every backend with its state and traffic, and the GPUs. Pure: a picture in, lines out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from vllm_circus.bus.messages import FIRST_TOKEN_BUCKETS, CountsMessage, ModelCounts
from vllm_circus.gpu import Gpu
from vllm_circus.lifecycle.states import State
from vllm_circus.logline import clean
from vllm_circus.screens.canvas import apart, bar, fit, paragraph, width_of
from vllm_circus.view.outline import OutlineModel
from vllm_circus.view.status import STYLES, Picture, gpu_text, proxy_trouble, why
from vllm_circus.view.table import Cell, Column, Line, Style, layout, spaced
from vllm_circus.view.units import UNKNOWN, count, counted, duration, latency, quantile, rate, size

#: Drop order where the terminal is narrow: the highest rank goes first.
COLUMNS = (
    Column("NAME"),
    Column("STATE"),
    Column("GPU", rank=6),
    Column("PORT", number=True, rank=7),
    Column("ADDRESS", rank=12),
    Column("IN-FLIGHT", number=True, rank=2),
    Column("WAIT", number=True, rank=4),
    Column("REQ", number=True, rank=3),
    Column("REQ/s", number=True, rank=10),
    Column("ERR", number=True, rank=1),
    Column("TOK/s", number=True, rank=5),
    Column("P50", number=True, rank=8),
    Column("P95", number=True, rank=9),
    Column("UPTIME", number=True, rank=11),
)
_LONGEST = 3  # lines of a reason
_HOT = 85  # degrees Celsius: cards slow themselves down a little above
_FULL = 0.97


def proxy_head(picture: Picture, width: int, rows: int) -> list[Line]:
    """Everything above the log, in at most about `rows` lines."""
    top = [_title(picture, width), fit(_sums(picture), width), *_plugins(picture)]
    gpus = gpu_lines(picture.counts.gpus if picture.counts else (), width, max(1, rows // 3))
    table = list(backend_table(picture, width))
    left = rows - len(top) - len(gpus)
    trouble = proxy_trouble(picture)
    reasons = [*([trouble] if trouble else []), *reasons_of(picture, picture.outline.models)]
    return [*top, *cut_table(table, max(3, left)), *told_in(reasons, width, left - len(table)), *gpus]


def _title(picture: Picture, width: int) -> Line:
    outline = picture.outline
    left: Line = (Cell("proxy ", "bold"), Cell(outline.url), *_workers(picture))
    up = f"up {duration(picture.now - picture.began)}" if picture.began is not None else ""
    return apart(left, (Cell(up),), width)


def _workers(picture: Picture) -> Iterator[Cell]:
    if picture.counts is None:
        return
    workers, planned = picture.counts.workers, picture.outline.workers
    text = f"  {len(workers)} of {counted(planned, 'worker')}" if len(workers) < planned else ""
    style: Style = "good" if not text else "busy" if picture.starts else "bad"
    yield Cell(text or f"  {counted(len(workers), 'worker')}", style)
    yield Cell(f"  {counted(sum(worker.connections for worker in workers), 'connection')}")


def _sums(picture: Picture) -> Line:
    """What all models of this set together do: the sums of the rows. Requests to no model are those of every set."""
    counts = picture.counts
    if counts is None:
        return (Cell("no word of the stats plugin yet", "busy"),)
    names = [model.name for model in picture.outline.models]
    models = [counts.models.get(name, ModelCounts()) for name in names]
    waiting, errors = sum(each.waiting for each in models), sum(each.errors for each in models)
    requests, tokens = (_sum_of(rates, names) for rates in (counts.request_rate, counts.token_rate))
    unrouted = sum(counts.unrouted.values())
    return (
        Cell(f"{many_requests(sum(each.requests for each in models))}, {rate(requests)}/s"),
        Cell(f"  {sum(each.in_flight for each in models)} in flight"),
        Cell(f"  {waiting} waiting" if waiting else "", "busy"),
        Cell(f"  {counted(errors, 'error')}", "bad" if errors else ""),
        Cell(f"  {rate(tokens)} tokens/s"),
        Cell(f"  {count(unrouted)} ever to no model" if unrouted else ""),
    )


def _sum_of(rates: Mapping[str, float], names: Iterable[str]) -> float:
    return sum(rates.get(name, 0.0) for name in names)


def many_requests(number: int) -> str:
    """So many requests."""
    return f"{count(number)} {'request' if number == 1 else 'requests'}"


def _plugins(picture: Picture) -> Iterator[Line]:
    if picture.models is None:
        yield (Cell("no word of the health plugin yet", "busy"),)
    for beat in picture.heartbeats():
        if beat.age is not None and not beat.alive:
            yield (Cell(f"{beat.name} silent for {duration(beat.age)}: what it told may be old", "bad"),)


def backend_table(picture: Picture, width: int) -> Iterator[Line]:
    """A row per engine, as lines."""
    rows = [_row(picture, model) for model in picture.outline.models]
    return map(spaced, layout(COLUMNS, rows, width))


def _row(picture: Picture, model: OutlineModel) -> Line:
    told = picture.state(model.name)
    return (
        Cell(model.name, "bold"),
        Cell(str(told.state), STYLES.get(told.state, "busy")) if told else Cell("unknown", "bad"),
        Cell(gpu_text(model.gpus)),
        Cell(str(model.port)),
        Cell(model.address.rpartition("/")[2] if model.address.startswith("unix:") else model.address),
        *traffic_cells(picture.counts, model.name),
        Cell(duration(picture.now - told.started_at) if told and told.started_at is not None else UNKNOWN),
    )


def traffic_cells(counts: CountsMessage | None, name: str) -> Line:
    """IN-FLIGHT, WAIT, REQ, REQ/s, ERR, TOK/s, P50 and P95."""
    if counts is None:
        return (Cell(UNKNOWN),) * 8
    model = counts.models.get(name, ModelCounts())
    return (
        Cell(str(model.in_flight)),
        Cell(str(model.waiting), "busy" if model.waiting else ""),
        Cell(count(model.requests)),
        Cell(rate(counts.request_rate.get(name, 0.0))),
        Cell(count(model.errors), "bad" if model.errors else ""),
        Cell(rate(counts.token_rate.get(name, 0.0))),
        *(Cell(first_token(counts, name, share)) for share in (0.5, 0.95)),
    )


def first_token(counts: CountsMessage, name: str, share: float) -> str:
    """The time to the first body byte of that share of answers, of the last minute."""
    histogram = counts.first_token.get(name)
    value = quantile(histogram, FIRST_TOKEN_BUCKETS, share) if histogram else None
    return UNKNOWN if value is None else latency(value)


def cut_table(table: Sequence[Line], most: int) -> list[Line]:
    """The table in at most `most` lines, its title included; what has no room is counted."""
    if len(table) <= most:
        return list(table)
    shown = table[: most - 1]
    return [*shown, (Cell(f"{len(table) - len(shown)} more: l hides the log, Tab shows each", "dim"),)]


def reasons_of(picture: Picture, models: Iterable[OutlineModel]) -> Iterator[Line]:
    """Why models are not ready that should be, or are on their way."""
    for model in models:
        told = picture.state(model.name)
        at_rest = told is None or (told.state is State.STOPPED and not model.enabled)
        if not at_rest and (reason := why(picture, model)) is not None:
            yield reason


def told_in(reasons: Sequence[Line], width: int, room: int) -> list[Line]:
    """Reasons in at most that many lines: what is long goes on below its first line where there is room for that."""
    for most in (_LONGEST, 2, 1):
        told = [line for reason in reasons for line in _folded(reason, width, most)]
        if len(told) <= room:
            return told
    return [fit(reason, width) for reason in reasons[: max(0, room)]]


def _folded(reason: Line, width: int, most: int) -> list[Line]:
    *name, text = reason
    return paragraph(Cell("".join(cell.text for cell in name), "bold"), text, width, most)


def gpu_lines(gpus: Sequence[Gpu], width: int, most: int) -> list[Line]:
    """The GPUs: a line each with its name, or where that takes more than `most` lines, several on one line.

    Where even that has no room, the last line counts the rest.
    """
    if len(gpus) <= most:
        return [_wide(gpu, width) for gpu in gpus]
    lines = _side_by_side(gpus, width)
    if len(lines) <= most + 1:
        return lines
    across = -(-len(gpus) // len(lines))
    return [*lines[:most], (Cell(f"{counted(len(gpus) - most * across, 'GPU')} more: l hides the log", "dim"),)]


def _side_by_side(gpus: Sequence[Gpu], width: int) -> list[Line]:
    cells = [_narrow(gpu) for gpu in gpus]
    across = max(1, (width + 3) // (max(map(width_of, cells)) + 3))
    wide = max(map(width_of, cells))
    lines: list[Line] = []
    for start in range(0, len(cells), across):
        line: list[Cell] = []
        for cell in cells[start : start + across]:
            line += [*cell, Cell(" " * (wide - width_of(cell) + 3))]
        lines.append(fit(tuple(line[:-1]), width))
    return lines


def _wide(gpu: Gpu, width: int) -> Line:
    head: Line = (Cell(f"GPU {gpu.index} "), Cell(clean(gpu.name).removeprefix("NVIDIA "), "dim"))
    if gpu.fault:
        return fit((*head, Cell(f"  {clean(gpu.fault)}", "bad")), width)
    told: Line = (_use(gpu), Cell(f" {_memory(gpu)}", _pressed(gpu)), _heat(gpu))
    room = width - width_of(head) - width_of(told) - 4
    if gpu.utilisation is None or room < 8:
        return apart(head, told, width)
    return (*head, Cell("  "), *bar(gpu.utilisation / 100, min(room, 40)), Cell(" "), *told)


def _narrow(gpu: Gpu) -> Line:
    if gpu.fault:
        return Cell(f"{gpu.index} "), Cell("lost", "bad")
    used = UNKNOWN if gpu.memory_used is None else size(gpu.memory_used)
    hot = _heat(gpu) if (gpu.temperature or 0) >= _HOT else Cell("")
    drawn = bar((gpu.utilisation or 0) / 100, 6)
    return (Cell(f"{gpu.index} "), *drawn, Cell(" "), _use(gpu), Cell(f" {used:>6}", _pressed(gpu)), hot)


def _use(gpu: Gpu) -> Cell:
    return Cell("  -" if gpu.utilisation is None else f"{gpu.utilisation:3d} %")


def _memory(gpu: Gpu) -> str:
    used, total = gpu.memory_used, gpu.memory_total
    if used is None or total is None:
        return UNKNOWN
    return f"{size(used):>6} of {size(total)}"


def _pressed(gpu: Gpu) -> Style:
    return "busy" if gpu.memory_used and gpu.memory_total and gpu.memory_used > _FULL * gpu.memory_total else ""


def _heat(gpu: Gpu) -> Cell:
    if gpu.temperature is None:
        return Cell("")
    return Cell(f"  {gpu.temperature} °C", "bad" if gpu.temperature >= _HOT else "")
