"""What became of one model and why: its state, its last crash, the log lines that tell, and what to do next."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from typing import Any

from vllm_circus.bus.messages import ModelState
from vllm_circus.lifecycle.life import Crash
from vllm_circus.lifecycle.states import State
from vllm_circus.logline import clean
from vllm_circus.view.outline import Outline
from vllm_circus.view.table import Cell, Line, Style
from vllm_circus.view.units import duration

_ILL = frozenset({State.FAILED, State.BACKOFF, State.UNHEALTHY})


def why_lines(state: ModelState, outline: Outline, now: float) -> Iterator[Line]:
    """The whole story of a model; `now` is wall-clock seconds since 1970."""
    yield _headline(state, now)
    crash = state.crash
    if state.reason and (crash is None or state.reason != crash.why.cause):
        yield from _entry("reason", state.reason, "bad" if state.state in _ILL else "")
    if state.fix and crash is None:
        yield from _entry("fix", state.fix, "good")
    if crash is not None:
        yield from _crash_lines(crash, over=state.state is State.READY, now=now)
    yield from _entry("next", _next(state, outline), "")


def why_document(state: ModelState) -> dict[str, Any]:
    """The same for programs. Times called `at` are wall-clock seconds since 1970, `ran` is in seconds.

    A time that nobody knows is null.
    """
    return {
        "name": state.name,
        "state": str(state.state),
        "since_at": state.since_at or None,
        "reason": state.reason,
        "fix": state.fix,
        "phase": state.phase,
        "tries": state.tries,
        "crash": asdict(state.crash) if state.crash else None,
    }


def _headline(state: ModelState, now: float) -> Line:
    style: Style = "bad" if state.state in _ILL else "good" if state.state is State.READY else "busy"
    more = f", {state.phase}" if state.phase else ""
    tries = f", failed {state.tries} times in a row" if state.tries > 1 else ", failed once" if state.tries else ""
    since = f" for {duration(now - state.since_at)}" if state.since_at else ""
    return Cell(state.name, "bold"), Cell(": "), Cell(str(state.state), style), Cell(f"{since}{clean(more)}{tries}")


def _crash_lines(crash: Crash, *, over: bool, now: float) -> Iterator[Line]:
    yield from _entry("last crash" if over else "cause", crash.why.cause, "" if over else "bad")
    if crash.why.fix:
        yield from _entry("fix", crash.why.fix, "" if over else "good")
    at = datetime.fromtimestamp(crash.at).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    process = f", process {crash.pid}" if crash.pid is not None else ""
    ran = f", {duration(crash.ran)} after its start" if crash.pid is not None else ""
    yield from _entry("when", f"{at} ({duration(now - crash.at)} ago){ran}{process}", "")
    for number, line in enumerate(crash.why.evidence):
        yield from _entry("" if number else "log", line, "dim")


def _entry(title: str, text: str, style: Style) -> Iterator[Line]:
    yield Cell(f"  {title:<11}", "dim"), Cell(clean(text), style)


def _next(state: ModelState, outline: Outline) -> str:
    logs, start = outline.command(f"logs {state.name}"), outline.command(f"start {state.name}")
    if state.state is State.FAILED:
        return f"correct it, then `{start}`; the whole log: `{logs}`"
    if state.state is State.BACKOFF:
        return f"it is started again by itself; `{start}` does so now; the whole log: `{logs}`"
    if state.on_call:
        return f"the next request for it brings it up, and so does `{start}`"
    return f"`{start}` starts it" if state.state is State.STOPPED else f"the whole log: `{logs}`"
