"""`vllm-circus logs`: the lines of models, proxy, plugins and circusd, one, several or all of them."""

from __future__ import annotations

import re
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from vllm_circus.cli.common import (
    ALL,
    Session,
    instance_option,
    known_model,
    need_running,
    say,
    wants_colour,
)
from vllm_circus.cli.completing import model_argument
from vllm_circus.config.places import nearest
from vllm_circus.view.logs import PARTS
from vllm_circus.view.outline import read_plan_outline

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from vllm_circus.paths import Instance
    from vllm_circus.view.logs import Entry, Form, Wanted
    from vllm_circus.view.outline import Outline
    from vllm_circus.view.tail import Followers, Mark

LAST = 100
EVERY = 0.1  # seconds between two looks at the files
LOOK_AGAIN = 1.0  # seconds between two looks for files that were not there


@click.command(short_help="Show log lines of models, proxy, plugins and circusd.")
@model_argument(ALL, *PARTS, required=False)
@click.option("-f", "--follow", is_flag=True, help="Go on with new lines as they come, until Ctrl-C.")
@click.option(
    "-n", "--lines", metavar="N", help=f"The last N lines of each, or `all`.  [default: {LAST}, with --since all]"
)
@click.option("--since", metavar="TIME", help="Not older than this: 90s, 10m, 1h30m, 2d, or 2026-11-23T14:30.")
@click.option("--grep", metavar="REGEX", help="Only lines in which this is found.")
@click.option("--probes", is_flag=True, help="Show the engines' access log of health probes as well.")
@click.option("-t", "--times", is_flag=True, help="Begin each line with the local time at which it came.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document a line: at, part, channel, text.")
@instance_option
@click.pass_obj
def logs(
    session: Session,
    names: tuple[str, ...],
    *,
    follow: bool,
    lines: str | None,
    since: str | None,
    grep: str | None,
    probes: bool,
    times: bool,
    as_json: bool,
) -> None:
    """Show log lines, those of several mixed in the order of time.

    MODEL is a model's name, one of its replicas (NAME-1), or one of `proxy`, `health`, `stats`, `circusd`; without any,
    or as `all`, it is everything of the set. Models that an earlier set had are shown where they are named.
    """
    from vllm_circus.view.logs import Form, Wanted
    from vllm_circus.view.tail import Followers, mark_end

    instance = session.instance
    wanted = Wanted(_since(since), _pattern(grep), probes)
    names = () if ALL in names else names
    parts = _parts(instance, names)
    form = Form(tuple(parts), as_json=as_json, times=times, colour=wants_colour(sys.stdout))
    marks = {part: mark_end(log) for part, log in parts.items()}
    print_entries(_recent(parts, marks, wanted, _number(lines, since)), form)
    if names and not as_json:
        _explain(instance, parts)
    if follow:
        followers = Followers(parts, marks)
        _follow(followers, instance if not names else None, wanted, form)


def _explain(instance: Instance, parts: Iterable[str]) -> None:
    """Say to standard error why models among the parts have crashed, and what to do; nothing where nothing runs."""
    from vllm_circus.cli.waiting import crashed

    for state in crashed(instance, parts):
        said = f"{state.reason}; {state.fix}" if state.fix else state.reason
        say(f"{state.name} is {state.state}: {said}")


def _since(text: str | None) -> datetime | None:
    from vllm_circus.view.logs import parse_since

    try:
        return parse_since(text, datetime.now(UTC)) if text is not None else None
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--since") from None


def _pattern(text: str | None) -> re.Pattern[str] | None:
    try:
        return re.compile(text) if text is not None else None
    except re.error as error:
        raise click.BadParameter(f"{text!r} is not a regular expression: {error}", param_hint="--grep") from None


def _number(text: str | None, since: str | None) -> int | None:
    """How many lines of each, None for all."""
    if text is None:
        return None if since else LAST
    if text == "all":
        return None
    if not text.isdecimal():
        raise click.BadParameter(f"{text!r} is neither a number nor `all`", param_hint="-n")
    return int(text)


def _parts(instance: Instance, names: tuple[str, ...]) -> dict[str, Path]:
    """The log of each part that is meant. Raises UnknownModel, and NotRunning as `_known_part` does."""
    parts, outline = known_parts(instance), read_plan_outline(instance)
    known = tuple(dict.fromkeys((*(outline.targets if outline else ()), *parts)))
    wanted = [part for name in names for part in _meant(_known_part(instance, name, known, outline), outline)]
    return {part: instance.log(part) for part in wanted or set_parts(instance)}


def _known_part(instance: Instance, name: str, known: tuple[str, ...], outline: Outline | None) -> str:
    """The name, if it is one of those known. Raises UnknownModel; where no model could be meant, first NotRunning."""
    models = [each for each in known if each not in PARTS]
    if name not in known and not nearest(name, models) and not (outline and outline.explain_name(name)):
        need_running(instance)
    return known_model(name, known, outline)


def _meant(name: str, outline: Outline | None) -> tuple[str, ...]:
    """The parts that a name stands for: a model's replicas, or itself."""
    engines = outline.engines(name) if outline else ()
    return tuple(engine.name for engine in engines) or (name,)


def set_parts(instance: Instance) -> tuple[str, ...]:
    """What the set that runs, or ran last, is made of; everything where there is no plan.

    What a model wrote before it had replicas belongs to it: no name of a command means that log alone.
    """
    outline, known = read_plan_outline(instance), known_parts(instance)
    return tuple(part for part in known if part in PARTS or part in outline.targets) if outline else known


def known_parts(instance: Instance) -> tuple[str, ...]:
    """Everything that has a log, or will have one: models of the plan, models that once ran, and our own parts."""
    outline = read_plan_outline(instance)
    planned = [model.name for model in outline.models] if outline else []
    written = sorted(path.stem for path in instance.log_dir.glob("*.log"))
    return tuple(dict.fromkeys(name for name in [*planned, *written] if name not in PARTS)) + PARTS


def _recent(
    parts: dict[str, Path], marks: dict[str, Mark | None], wanted: Wanted, number: int | None
) -> Iterable[Entry]:
    from vllm_circus.view.logs import merge
    from vllm_circus.view.tail import all_entries, last_entries

    if number is None:
        return merge(all_entries(part, log, wanted, marks[part]) for part, log in parts.items())
    return merge(last_entries(part, log, number, wanted, marks[part]) for part, log in parts.items())


def _follow(followers: Followers, everything: Instance | None, wanted: Wanted, form: Form) -> None:
    """Print new lines for ever; with `everything` also those of parts of that instance that come later."""
    look = 0.0
    while True:
        if everything and time.monotonic() >= look:
            form = replace(form, parts=set_parts(everything))
            followers.add({part: everything.log(part) for part in form.parts})
            look = time.monotonic() + LOOK_AGAIN
        entries = followers.poll()
        print_entries(filter(wanted.matches, entries), form)
        if not entries:
            time.sleep(EVERY)


def print_entries(entries: Iterable[Entry], form: Form) -> None:
    """Log lines to stdout, at once."""
    from vllm_circus.view.table import paint

    for entry in entries:
        click.echo(paint(form.line(entry), colour=form.colour), color=True)
    sys.stdout.flush()
