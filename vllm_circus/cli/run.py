"""`vllm-circus run`: the daemon itself, in the foreground."""

from __future__ import annotations

import click

from vllm_circus.cli.common import Session, config_file, instance_option, plan_for_start
from vllm_circus.cli.completing import config_argument


@click.command(short_help="Run the set in the foreground, for systemd and the like.")
@config_argument
@click.option("--background", is_flag=True, hidden=True, help="Log to circusd's own file only, as `up` starts it.")
@instance_option
@click.pass_context
def run(context: click.Context, config: str | None, background: bool) -> None:
    """Run the set in the foreground, for systemd and the like. SIGTERM and Ctrl-C end it in order."""
    session = context.ensure_object(Session)
    plan = plan_for_start(session.instance, config_file(session.instance, config))
    from vllm_circus.supervise.daemon import run as run_daemon

    context.exit(run_daemon(plan, background=background))
