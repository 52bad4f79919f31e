"""`vllm-circus render`: what circusd would be given, and how that differs from what it has."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from vllm_circus.cli.common import (
    STDOUT,
    Session,
    build_plan,
    instance_option,
    meant_file,
    need_running,
    say,
    say_warnings,
)
from vllm_circus.cli.completing import config_argument, folders
from vllm_circus.errors import CircusError

if TYPE_CHECKING:
    from vllm_circus.paths import Instance


@click.command(short_help="Write out what circusd would be given.")
@config_argument
@click.option("--diff", is_flag=True, help="Only the difference from what the running set was given.")
@click.option(
    "--output",
    metavar="DIR",
    shell_complete=folders,
    help="Write the files into this folder instead of circus.ini to stdout (-).",
)
@instance_option
@click.pass_context
def render(context: click.Context, config: str | None, diff: bool, output: str | None) -> None:
    """Write out what circusd would be given: circus.ini, and with --output also plan.json. Nothing is started.

    Without CONFIG it is the running set's models file, or the instance's own. With --diff the exit code is 0 without a
    difference, 1 with one, and 3 where nothing runs.
    """
    if diff and output:
        raise click.UsageError("--diff and --output exclude each other")
    output = None if output == STDOUT else output
    instance = context.ensure_object(Session).instance
    if diff:
        context.exit(_show_difference(instance, config))
    plan = build_plan(instance, meant_file(instance, config))
    from vllm_circus.render import render_files, write_files

    say_warnings(plan.warnings)
    files = list(render_files(plan))
    if output:
        folder = Path(output)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_files(files, folder)
        except OSError as error:
            raise CircusError(f"cannot write into {folder}: {error.strerror}", hint="name another folder") from error
        say(f"wrote {', '.join(file.name for file in files)} to {folder}")
    else:
        click.echo(next(file.content for file in files if file.name == instance.ini.name), nl=False)


def _show_difference(instance: Instance, config: str | None) -> int:
    """How the files that the running set was given would change; returns the exit code. Raises NotRunning."""
    if config is None:
        need_running(instance)
    plan = build_plan(instance, meant_file(instance, config))
    need_running(instance)
    from vllm_circus.render import difference

    text = difference(plan)
    click.echo(text, nl=False)
    if not text:
        say("no difference")
    return 1 if text else 0
