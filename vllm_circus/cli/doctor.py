"""`vllm-circus doctor`: what is wrong here, and what to type about it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from vllm_circus.cli.common import Session, config_file, instance_option, print_lines, say, terminal_width
from vllm_circus.cli.completing import config_argument

_NARROW = 80  # columns, where there is no terminal to ask


@click.command(short_help="Say what is wrong with machine, models file and set, and how to mend it.")
@config_argument
@click.option("--json", "as_json", is_flag=True, help="Every finding as one JSON document.")
@click.option("--all", "everything", is_flag=True, help="Show also what is well.")
@instance_option
@click.pass_obj
def doctor(session: Session, config: str | None, *, as_json: bool, everything: bool) -> None:
    """Look at the machine, the models file and the running set, and say for each fault what to type.

    CONFIG is a models file, or the name of a saved configuration; else the running set's models file is looked at, or
    the instance's own. Nothing is changed.
    Exit code 1 where something is a fault.
    """
    from vllm_circus import checkup

    instance = session.instance
    path = config_file(instance, config) if config else None
    with telling_progress() as report:
        findings = checkup.run(instance, path, report)
    if as_json:
        click.echo(json.dumps(checkup.document(instance, findings), indent=2))
    else:
        width = terminal_width() or _NARROW
        print_lines((line, False) for line in checkup.lines(findings, width, everything=everything))
        say(checkup.next_step(instance, findings, path))
    if checkup.worst(findings) is checkup.Verdict.FAULT:
        raise click.exceptions.Exit(1)


@contextmanager
def telling_progress() -> Iterator[Callable[[str], None]]:
    """What is looked at, in one line that goes away again; only where somebody watches."""
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield lambda _text: None
        return
    try:
        yield lambda text: click.echo(f"\r\x1b[Klooking at {text} …", nl=False, err=True, color=True)
    finally:
        click.echo("\r\x1b[K", nl=False, err=True, color=True)
