"""`vllm-circus render`: what circusd would be given, and how that differs from what it has."""

from __future__ import annotations

from pathlib import Path

import click

from vllm_circus.cli.common import Session, build_plan, config_file, instance_option, say, say_warnings


@click.command(short_help="Write out what circusd would be given.")
@click.argument("config", metavar="[CONFIG]", required=False)
@click.option("--diff", is_flag=True, help="Only the difference from the files that the running set has.")
@click.option("--output", metavar="DIR", help="Write the files into this folder instead of circus.ini to stdout.")
@instance_option
@click.pass_obj
def render(session: Session, config: str | None, diff: bool, output: str | None) -> None:
    """Write out what circusd would be given: circus.ini, and with --output also plan.json. Nothing is started."""
    if diff and output:
        raise click.UsageError("--diff and --output exclude each other")
    plan = build_plan(session.instance, config_file(session.instance, config))
    from vllm_circus.render import difference, render_files, write_files

    say_warnings(plan.warnings)
    if diff:
        text = str(difference(plan))
        click.echo(text, nl=False)
        if not text:
            say("no difference")
        return
    files = list(render_files(plan))
    if output:
        folder = Path(output)
        folder.mkdir(parents=True, exist_ok=True)
        write_files(files, folder)
        say(f"wrote {', '.join(file.name for file in files)} to {folder}")
    else:
        click.echo(next(file.content for file in files if file.name == session.instance.ini.name), nl=False)
