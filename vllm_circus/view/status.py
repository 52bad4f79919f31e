"""The status of one instance as lines of cells: a row per model, why a model is not ready, proxy and plugins.

Everything is built from one `Picture`, plain data, so that what `status` prints can be tested without processes. A
plugin counts as alive by the age of its last message, never by what circus says about its process.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from vllm_circus.bus.messages import (
    FIRST_TOKEN_BUCKETS,
    HEARTBEAT,
    CountsMessage,
    ModelCounts,
    ModelsMessage,
    ModelState,
)
from vllm_circus.lifecycle.states import State
from vllm_circus.logline import clean
from vllm_circus.view.outline import Outline, OutlineModel
from vllm_circus.view.table import Cell, Column, Line, Style, layout
from vllm_circus.view.units import UNKNOWN, count, counted, duration, latency, quantile, rate, size

SILENT_AFTER = 3 * HEARTBEAT
#: Seconds from circusd's start in which proxy workers may still be coming.
STARTS_WITHIN = 5.0

#: Drop order where the terminal is narrow: the highest rank goes first.
COLUMNS = (
    Column("NAME"),
    Column("STATE"),
    Column("GPU", rank=6),
    Column("PORT", number=True, rank=8),
    Column("MEM", number=True, rank=9),
    Column("IN-FLIGHT", number=True, rank=2),
    Column("WAIT", number=True, rank=2),
    Column("REQ", number=True, rank=3),
    Column("TOK/s", number=True, rank=5),
    Column("TTFT", number=True, rank=7),
    Column("ERR", number=True, rank=1),
    Column("UPTIME", number=True, rank=4),
)

#: How a state looks; all others are on their way.
STYLES: dict[State, Style] = {
    State.READY: "good",
    State.UNHEALTHY: "bad",
    State.BACKOFF: "bad",
    State.FAILED: "bad",
    State.STOPPED: "dim",
    State.SLEEPING: "dim",
}


@dataclass(frozen=True)
class Picture:
    """All that a status is made of.

    Attributes:
        outline: the plan of the running set.
        control: circusd's endpoint.
        daemon: pid of circusd.
        now: wall-clock seconds since 1970.
        models: last word of the health plugin; None where it said nothing.
        counts: last word of the stats plugin; None where it said nothing.
        news: a sentence about the set as a whole, e.g. that its models file has changed since; mostly empty.
        circusctl: the command line that reaches circusd; empty leaves it out.
        proxy_words: what a proxy worker last complained of, where some are missing; mostly empty.
        began: when circusd started, in seconds since 1970; None where that is not known.
        halted: somebody stopped circusd (SIGSTOP): what runs goes on, and nothing is started.
    """

    outline: Outline
    control: str
    daemon: int
    now: float
    models: ModelsMessage | None = None
    counts: CountsMessage | None = None
    news: str = ""
    circusctl: str = ""
    proxy_words: str = ""
    began: float | None = None
    halted: bool = False

    def state(self, name: str) -> ModelState | None:
        """The state of a model, None where nobody told."""
        told = self.models.models if self.models else ()
        return next((state for state in told if state.name == name), None)

    def heartbeats(self) -> tuple[Heartbeat, Heartbeat]:
        """How the plugins are."""
        return (
            judge("health", self.models.sent_at if self.models else None, self.now),
            judge("stats", self.counts.sent_at if self.counts else None, self.now),
        )

    @property
    def lacks_workers(self) -> bool:
        """Whether fewer proxy workers live than are planned; False where nobody tells."""
        return self.counts is not None and len(self.counts.workers) < self.outline.workers

    @property
    def starts(self) -> bool:
        """Whether it is too early to miss a proxy worker."""
        return self.began is not None and 0 <= self.now - self.began < STARTS_WITHIN and not self.proxy_words

    @property
    def ready(self) -> bool:
        """Whether every enabled model is ready."""
        states = [self.state(model.name) for model in self.outline.models if model.enabled]
        return all(state is not None and state.state is State.READY for state in states)


@dataclass(frozen=True)
class Heartbeat:
    """A plugin by its last message: `age` in seconds, None where it said nothing at all."""

    name: str
    age: float | None

    @property
    def alive(self) -> bool:
        """Whether it spoke lately."""
        return self.age is not None and self.age <= SILENT_AFTER


def judge(name: str, sent_at: float | None, now: float) -> Heartbeat:
    """The heartbeat of a plugin whose last message is from `sent_at`; a message from the future is fresh."""
    return Heartbeat(name, None if sent_at is None else max(0.0, now - sent_at))


def status_lines(picture: Picture, width: int | None = None) -> Iterator[tuple[Line, bool]]:
    """Every line of the status and whether it is a row of the table; `width` in columns, None for no limit."""
    for line in _table(picture, width):
        yield line, True
    reasons = [reason for model in picture.outline.models if (reason := why(picture, model))]
    reasons += [trouble] if (trouble := proxy_trouble(picture)) else []
    for below in [*([(), *reasons] if reasons else []), (), *_footer(picture, width)]:
        yield below, False


def ready_words(states: Collection[ModelState | None]) -> str:
    """How many of these models are ready; those at rest are not waited for: `3 of 4 models ready, 2 at rest`.

    None stands for a model of which nobody told.
    """
    known = [told for told in states if told is not None]
    ready, resting = sum(told.state is State.READY for told in known), sum(told.at_rest for told in known)
    if resting and resting == len(states):
        return f"{counted(resting, 'model')} at rest"
    rest = f", {resting} at rest" if resting else ""
    return f"{ready} of {counted(len(states) - resting, 'model')} ready{rest}"


def memory_used(picture: Picture, model: OutlineModel) -> int | None:
    """Bytes in use on the model's own GPUs; None where it has none or they do not tell."""
    gpus = picture.counts.gpus if picture.counts else ()
    used = {gpu.index: gpu.memory_used for gpu in gpus}
    parts = [used.get(index) for index in model.gpus or ()]
    known = [part for part in parts if part is not None]
    return sum(known) if parts and len(known) == len(parts) else None


def _table(picture: Picture, width: int | None) -> Iterator[Line]:
    """A row per model; WAIT is there while somebody waits."""
    rows = [_row(picture, model) for model in picture.outline.models]
    if picture.counts is not None and any(counts.waiting for counts in picture.counts.models.values()):
        return layout(COLUMNS, rows, width)
    at = next(index for index, column in enumerate(COLUMNS) if column.title == "WAIT")
    return layout((*COLUMNS[:at], *COLUMNS[at + 1 :]), [(*row[:at], *row[at + 1 :]) for row in rows], width)


def why(picture: Picture, model: OutlineModel) -> Line | None:
    """Why a model is not ready; None where it is."""
    told = picture.state(model.name)
    if told is None:
        return _reason(model.name, "nobody tells: the health plugin is silent", "bad")
    if told.state is State.READY:
        return None
    parts = [
        clean(told.reason) or ("waits for its turn" if told.state is State.QUEUED else ""),
        clean(told.fix),
        clean(told.phase),
        *_timing(told, picture.now),
        _next_step(told, model, picture.outline),
    ]
    style = STYLES.get(told.state, "busy")
    return _reason(model.name, "; ".join(part.removesuffix(".") for part in parts if part) or str(told.state), style)


def proxy_trouble(picture: Picture) -> Line | None:
    """Why proxy workers are missing; None where none is."""
    if not picture.lacks_workers or picture.counts is None or picture.starts:
        return None
    living, planned = len(picture.counts.workers), picture.outline.workers
    parts = (
        f"{living} of {counted(planned, 'worker')} alive",
        clean(picture.proxy_words),
        f"see `{picture.outline.command('logs proxy')}`",
    )
    return _reason("proxy", "; ".join(filter(None, parts)), "busy" if living else "bad")


def _timing(told: ModelState, now: float) -> Iterator[str]:
    if told.state in {State.QUEUED, State.LOADING, State.DRAINING, State.STOPPING, State.UNHEALTHY}:
        yield f"{duration(now - told.since_at)} so far"
    if told.tries:
        # also true of one that was ready for a while, too short a while, before it crashed
        yield f"failed {told.tries} times in a row" if told.tries > 1 else "failed once"
    unknown = told.state is State.BACKOFF and told.expected is None  # what clients are told to wait is a guess then
    if told.retry_after is not None and told.state.coming and not unknown:
        yield f"ready in about {duration(max(1.0, told.retry_after))}"


def _next_step(told: ModelState, model: OutlineModel, outline: Outline) -> str:
    start = f"`{outline.command(f'start {model.name}')}`"
    if told.state is State.FAILED:
        return f"see `{outline.command(f'why {model.name}')}`, then {start}"
    return f"{start} starts it" if told.state is State.STOPPED else ""


def _reason(name: str, text: str, style: Style) -> Line:
    return Cell(name, "bold"), Cell(": "), Cell(text, style)


def _row(picture: Picture, model: OutlineModel) -> Line:
    told = picture.state(model.name)
    return (
        Cell(model.name, "bold"),
        Cell(str(told.state), STYLES.get(told.state, "busy")) if told else Cell("unknown", "bad"),
        Cell(gpu_text(model.gpus)),
        Cell(str(model.port)),
        Cell(UNKNOWN if (used := memory_used(picture, model)) is None else size(used)),
        *_traffic(picture, model.name),
        Cell(duration(picture.now - told.started_at) if told and told.started_at is not None else UNKNOWN),
    )


def _traffic(picture: Picture, name: str) -> tuple[Cell, ...]:
    """IN-FLIGHT, WAIT, REQ, TOK/s, TTFT and ERR."""
    if picture.counts is None:
        return (Cell(UNKNOWN),) * 6
    counts = picture.counts.models.get(name, ModelCounts())
    first = quantile(counts.first_token, FIRST_TOKEN_BUCKETS, 0.5)
    return (
        Cell(str(counts.in_flight)),
        Cell(str(counts.waiting)),
        Cell(count(counts.requests)),
        Cell(rate(picture.counts.token_rate.get(name, 0.0))),
        Cell(UNKNOWN if first is None else latency(first)),
        Cell(count(counts.errors), "bad" if counts.errors else ""),
    )


def gpu_text(gpus: tuple[int, ...] | None) -> str:
    """GPU indices as a table shows them; `-` where the engine sees whatever circusd sees."""
    if gpus is None:
        return UNKNOWN
    return ",".join(map(str, gpus)) or "cpu"


def folded(command: str, width: int | None) -> tuple[str, ...]:
    """A command for circusctl on as few lines as `width` columns allow, never broken within its path."""
    if width is None or len(command) <= width:
        return (command,)
    program, option, endpoint = command.rpartition(" --endpoint ")
    return f"{program} \\", f" {option.strip()} {endpoint}"


def _footer(picture: Picture, width: int | None) -> Iterator[Line]:
    outline, workers = picture.outline, picture.counts.workers if picture.counts else ()
    yield (
        Cell("proxy    ", "dim"),
        Cell(outline.url),
        Cell(f"  {outline.unix_socket}" if outline.unix_socket else ""),
        Cell("  "),
        _workers(len(workers), picture) if picture.counts else Cell("workers unknown", "bad"),
        Cell(f"  {counted(sum(worker.connections for worker in workers), 'connection')}" if workers else ""),
    )
    yield (Cell("plugins  ", "dim"), *_plugins(picture.heartbeats()))
    yield Cell("circusd  ", "dim"), Cell(f"pid {picture.daemon}")
    if picture.halted:
        what = "somebody stopped circusd (SIGSTOP), and nothing is started meanwhile"
        yield (Cell(f"{what}; `kill -CONT {picture.daemon}` lets it go on", "bad"),)
    if picture.circusctl:  # on lines that can be pasted
        yield from ((Cell(line),) for line in folded(picture.circusctl, width))
    if picture.news:
        yield (Cell(picture.news, "busy"),)


def _workers(living: int, picture: Picture) -> Cell:
    planned = picture.outline.workers
    if living >= planned:
        return Cell(counted(living, "worker"), "good")
    so_far = f"{living} of {counted(planned, 'worker')}"
    return Cell(f"{so_far} so far", "busy") if picture.starts else Cell(so_far, "bad")


def _plugins(beats: tuple[Heartbeat, ...]) -> Iterator[Cell]:
    for beat in beats:
        yield Cell(f"{beat.name} ")
        if beat.age is None:
            yield Cell("silent", "bad")
        else:
            yield Cell("ok" if beat.alive else f"silent for {duration(beat.age)}", "good" if beat.alive else "bad")
        yield Cell("  ")
