"""The models of a running set: a table of all, and what can be done with each in its state.

Rules: a wish goes the way of the command of the same name; its progress is shown until it has come true, and Ctrl-C
ends the waiting alone; every look at the table is a fresh one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

from vllm_circus.menu.actions import Deed, Engine, deeds
from vllm_circus.menu.ask import Choice, Heading
from vllm_circus.menu.lines import within
from vllm_circus.menu.running import in_flight, look, runs
from vllm_circus.menu.trying import attempt
from vllm_circus.view.table import Cell, Column, layout, paint, spaced

if TYPE_CHECKING:
    from vllm_circus.bus.messages import Verb
    from vllm_circus.menu.context import Context
    from vllm_circus.paths import Instance
    from vllm_circus.view.status import Picture

_COLUMNS = (
    Column("NAME"),
    Column("STATE"),
    Column("GPU", rank=1),
    Column("PORT", rank=2),
)
_ADD, _AGAIN, _BACK = "+add", "+again", "+back"  # no model can be called so
_LEVELS: dict[Deed, Literal[1, 2]] = {"deep sleep": 2}


@dataclass(frozen=True)
class _Row:
    """One line of the table: a model, or one of its replicas; beside it what it does, or why it does nothing."""

    target: str
    cells: tuple[Cell, ...]
    hint: str


def manage(context: Context, instance: Instance) -> None:
    """The table, until somebody goes back, or the set ends. Raises NotRunning where it has no plan yet."""
    last = ""
    while runs(instance):
        picture = look(instance)
        last = context.asker.choose("Manage models", list(table(picture, context.width)), default=last)
        if last == _BACK:
            return
        if last == _ADD:
            attempt(context, _add, instance)
        elif last != _AGAIN:
            attempt(context, manage_one, instance, last)


def table(picture: Picture, width: int) -> Iterator[Choice[str] | Heading]:
    """Every model with its state, then what can be done besides."""
    rows = list(_rows(picture))
    lines = [paint(spaced(line), colour=False) for line in layout(_COLUMNS, [row.cells for row in rows], width // 2)]
    yield from (Choice(row.target, line, row.hint) for row, line in zip(rows, lines[1:], strict=True))
    yield Heading("or")
    yield Choice(_ADD, "Add a model", "to the models file and to the running set")
    yield Choice(_AGAIN, "Look again")
    yield Choice(_BACK, "Back")


def manage_one(context: Context, instance: Instance, name: str) -> None:
    """Ask what to do with one model or replica, and do it. Raises Back, and CircusError where it cannot be done."""
    from vllm_circus.cli.common import known_model, need_outline

    outline = need_outline(instance)
    known_model(name, outline.targets, outline)  # somebody else may have removed it
    picture = look(instance)
    engines = [engine.name for engine in outline.engines(name)]
    offered: list[Choice[Deed | None] | Heading] = [
        cast("Choice[Deed | None]", choice)
        for choice in deeds(_engines(instance, picture, engines), in_flight=in_flight(picture, engines))
        if choice.value != "remove" or name in {model.group for model in outline.models}
    ]
    offered.append(Choice(None, "Back"))
    deed = context.asker.choose(f"{name}: {_summary(picture, engines)}", offered)
    if deed is not None:
        _do(context, instance, name, deed)


def _do(context: Context, instance: Instance, name: str, deed: Deed) -> None:
    match deed:
        case "why":
            _why(context, instance, name)
        case "logs":
            from vllm_circus.screens.monitor import show_models

            show_models(instance, name, plain=context.plain)
        case "remove":
            _remove(context, instance, name)
        case "start" | "stop" | "restart" | "sleep" | "deep sleep" | "wake":
            verb = "sleep" if deed == "deep sleep" else deed
            wish(context, instance, verb, name, _LEVELS.get(deed, 1))


def wish(context: Context, instance: Instance, verb: Verb, name: str, level: Literal[1, 2] = 1) -> None:
    """Have a wish carried out and show how it goes; Ctrl-C ends the showing. Raises CircusError as the command does."""
    from vllm_circus.cli.operate import operate

    context.asker.say(f"{verb} {name}; Ctrl-C stops waiting for it, and it goes on")
    try:
        operate(instance, verb, (name,), wait=True, timeout=None, level=level)
    except KeyboardInterrupt:
        context.asker.say(f"no longer waiting; what was begun for {name} goes on")


def _engines(instance: Instance, picture: Picture, names: Sequence[str]) -> list[Engine]:
    from vllm_circus.plan.types import load_plan

    try:
        sleeping = {model.name for model in load_plan(instance.plan.read_bytes()).models if model.sleeps}
    except (OSError, ValueError):  # of another release: the health plugin says so where it matters
        sleeping = set(names)
    return [Engine(picture.state(name), name in sleeping) for name in names]


def _summary(picture: Picture, engines: Sequence[str]) -> str:
    """The state of one engine, or of how many of several."""
    states = [str(told.state) if (told := picture.state(name)) else "unknown" for name in engines]
    if len(states) == 1:
        return states[0]
    return ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))


def _rows(picture: Picture) -> Iterator[_Row]:
    for group in dict.fromkeys(model.group for model in picture.outline.models):
        engines = [model for model in picture.outline.models if model.group == group]
        if [engine.name for engine in engines] != [group]:
            names = [engine.name for engine in engines]
            cells = (Cell(group), Cell(_summary(picture, names)), *(Cell(""),) * (len(_COLUMNS) - 2))
            yield _Row(group, cells, "all replicas")
        for engine in engines:
            yield _row(picture, engine.name)


def _row(picture: Picture, name: str) -> _Row:
    from vllm_circus.view.status import gpu_text

    model, told = picture.outline.model(name), picture.state(name)
    cells = (
        Cell(name),
        Cell(str(told.state) if told else "unknown"),
        Cell(f"GPU {gpu_text(model.gpus)}" if model and model.gpus else ""),
        Cell(f"port {model.port}" if model else ""),
    )
    return _Row(name, cells, _words(picture, name))


def _words(picture: Picture, name: str) -> str:
    """What an engine does, or why it does nothing."""
    from vllm_circus.lifecycle.states import State
    from vllm_circus.logline import clean
    from vllm_circus.view.units import counted, duration

    told = picture.state(name)
    if told is None:
        return "nobody tells: the health plugin is silent"
    if told.state is not State.READY:
        return clean(told.reason or told.phase)
    counts = picture.counts.models.get(name) if picture.counts else None
    served = f"{counted(counts.requests, 'request')}, {counts.in_flight} in flight" if counts else "no request"
    return f"{served}, up {duration(picture.now - told.started_at)}" if told.started_at is not None else served


def _why(context: Context, instance: Instance, name: str) -> None:
    from vllm_circus.view.why import why_lines

    picture = look(instance)
    for number, engine in enumerate(picture.outline.engines(name)):
        if number:
            context.asker.show([()])
        if told := picture.state(engine.name):
            context.asker.show(within(why_lines(told, picture.outline, time.time()), context.width - 1))
        else:
            context.asker.say(f"{engine.name}: nobody tells: the health plugin is silent")
    context.asker.pause()


def _remove(context: Context, instance: Instance, name: str) -> None:
    """Take a model out of the set and its file. Raises CannotEdit where it is the only one."""
    from vllm_circus.cli.change import removing
    from vllm_circus.menu.reloading import apply_edit
    from vllm_circus.view.units import counted

    picture = look(instance)
    asked = in_flight(picture, [engine.name for engine in picture.outline.engines(name)])
    if asked:
        context.asker.say(f"{counted(asked, 'request')} in flight may end first.")
    apply_edit(context, instance, removing((name,)), f"Remove {name}?")


def _add(context: Context, instance: Instance) -> None:
    """Ask for a model as the wizard does, and add it to the set and its file. Raises Back, and FileGone."""
    from vllm_circus.cli.change import adding
    from vllm_circus.cli.common import meant_file, need_outline
    from vllm_circus.menu.reloading import apply_edit
    from vllm_circus.menu.wizard.models import add_model
    from vllm_circus.menu.wizard.run import setup_of
    from vllm_circus.menu.wizard.setup import ordered
    from vllm_circus.stores.inplace import read_text

    outline = need_outline(instance)
    path = meant_file(instance, None)
    setup = setup_of(path.name, read_text(path))
    model = ordered(add_model(setup, context, outline, lambda _setup: None).models[-1].values)
    apply_edit(context, instance, adding(model, {}), f"Add {model['name']}?")
