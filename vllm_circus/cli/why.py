"""`vllm-circus why`: why a model is not ready, or why it crashed last, with what to do about it."""

from __future__ import annotations

import json
import time

import click

from vllm_circus.cli.common import (
    ALL,
    Session,
    instance_option,
    need_outline,
    need_running,
    print_lines,
)
from vllm_circus.cli.completing import model_argument
from vllm_circus.cli.operate import meant

#: Seconds that the health plugin has to say its last word again.
PATIENCE = 5.0


@click.command(short_help="Say why a model is not ready, or crashed, and what to do.")
@model_argument(ALL, required=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON document: a list with an entry per model.")
@instance_option
@click.pass_obj
def why(session: Session, names: tuple[str, ...], as_json: bool) -> None:
    """Say why models are not ready, or why they crashed last: the cause, what to do, and the log lines that tell.

    A model with replicas stands for all of them, `all` for every model. Exit code 3 where nothing runs, 4 for a model
    that there is not.
    """
    instance = session.instance
    need_running(instance)
    outline = need_outline(instance)
    engines = meant(names, outline)
    from vllm_circus.cli.waiting import current_states
    from vllm_circus.view.why import why_document, why_lines

    states = current_states(instance, PATIENCE)
    told = [states[engine.name] for engine in engines if engine.name in states]
    if as_json:
        click.echo(json.dumps([why_document(state) for state in told], indent=2))
        return
    for number, state in enumerate(told):
        if number:
            click.echo()
        print_lines((line, False) for line in why_lines(state, outline, time.time()))
