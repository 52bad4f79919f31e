"""`vllm-circus reload`: have the running set go by the models file as it is now, and touch only what changed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vllm_circus.cli.common import (
    Session,
    build_plan,
    instance_option,
    meant_file,
    need_outline,
    need_running,
    say,
    say_warnings,
    words,
)
from vllm_circus.cli.completing import config_argument
from vllm_circus.cli.sure import confirm
from vllm_circus.errors import CircusError

if TYPE_CHECKING:
    from vllm_circus.bus.messages import ModelState
    from vllm_circus.cli.waiting import States
    from vllm_circus.paths import Instance
    from vllm_circus.plan.difference import Change, Difference
    from vllm_circus.plan.types import Plan

#: Seconds that the health plugin has to answer.
ANSWER_WITHIN = 10.0


@click.command(short_help="Apply a changed models file: only what changed is touched.")
@config_argument
@click.option("-y", "--yes", is_flag=True, help="Do it without asking.")
@click.option("--dry-run", is_flag=True, help="Only show what would be done.")
@click.option("--json", "as_json", is_flag=True, help="What is done as one JSON document; with --yes or --dry-run.")
@click.option("--no-wait", is_flag=True, help="Return at once instead of when it has come true.")
@click.option("--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="Wait no longer than this.")
@instance_option
@click.pass_obj
def reload(
    session: Session,
    config: str | None,
    *,
    yes: bool,
    dry_run: bool,
    as_json: bool,
    no_wait: bool,
    timeout: float | None,
) -> None:
    """Have the running set go by CONFIG (a file or a saved name), or by its own models file as it is now.

    First shows what would be done, and asks. Models that are new are started, those that are gone are drained and
    stopped, and of the others only those get a new process whose engine has changed, replicas one after the other.
    Names, limits, queues and keys change at once. A file with a fault changes nothing: exit code 2.
    """
    if as_json and not (yes or dry_run):
        raise click.UsageError("--json goes with --yes or --dry-run")
    instance = session.instance
    need_running(instance)
    path = meant_file(instance, config)
    still_same = _unless_changed(path)
    plan = build_plan(instance, path)
    difference = difference_to(plan)
    show_difference(difference, as_json=as_json)
    if dry_run:
        return
    if not difference.applies and plan.source == need_outline(instance).source:
        note_unapplied(plan, difference)
        return
    if not yes and difference.applies and not confirmed():
        say("nothing was changed")
        return
    carry_out(plan, difference, wait=not no_wait, timeout=timeout, first=still_same)


def _unless_changed(path: Path) -> Callable[[], None]:
    """Refuses, when it is called, a plan of a file that somebody has written since: his change would be undone."""
    from vllm_circus.config.load import read_bytes
    from vllm_circus.stores.locking import ChangedMeanwhile

    data = read_bytes(path)

    def check() -> None:
        if read_bytes(path) != data:
            raise ChangedMeanwhile(f"{path} was changed meanwhile", hint="nothing was done; reload it again")

    return check


def difference_to(plan: Plan) -> Difference:
    """What the plan would do to the set that runs. Raises PortHeld."""
    from vllm_circus.plan.difference import compare
    from vllm_circus.plan.held import on_held_port
    from vllm_circus.plan.types import load_plan

    running = load_plan(plan.instance.plan.read_bytes())
    if name := on_held_port(running, plan):
        raise PortHeld(
            f"{name}: port {running.proxy.port} is the running proxy's until the set is started anew",
            hint=f"choose another port for it, or `{words(plan.instance, 'down')}` first",
        )
    return compare(running, plan)


class PortHeld(CircusError):
    """An engine is to listen where the proxy does that runs."""

    exit_code = 2


def show_difference(difference: Difference, *, as_json: bool = False) -> None:
    """Print what would be done, and what the operator should know of it that was not so before."""
    if as_json:
        click.echo(json.dumps(asdict(difference), indent=2))
        return
    for line in difference_lines(difference):
        click.echo(line)
    say_warnings(difference.warnings)


def note_unapplied(plan: Plan, difference: Difference) -> None:
    """Write down that the file was read, and that nothing in it is to be applied now. Raises CircusError."""
    from vllm_circus.files import file_errors
    from vllm_circus.stores.lastread import note_read
    from vllm_circus.supervise.lock import hold_change

    with file_errors(), hold_change(plan.instance, say):
        note_read(plan, difference.fixed)


def carry_out(
    plan: Plan,
    difference: Difference,
    *,
    wait: bool,
    timeout: float | None,
    first: Callable[[], None] = lambda: None,
) -> None:
    """Have the running set go by the plan, and wait until it has come true; `first` is as for `apply_plan`.

    Raises as `apply_plan`, and NotRunning.
    """
    from vllm_circus.cli.waiting import current_states

    before = current_states(plan.instance, ANSWER_WITHIN)
    apply_plan(plan, first)
    if wait:
        _wait(plan.instance, difference, before, timeout)


def difference_lines(difference: Difference) -> Iterator[str]:
    """What would be done, a line for each model."""
    if difference.empty:
        yield "nothing has changed"
    for name in difference.added:
        yield f"+ {name}: new, is started"
    for name in difference.removed:
        yield f"- {name}: gone, is drained and stopped"
    for change in difference.restarted:
        yield f"~ {change.name}: is restarted{_because(change)}"
    for change in difference.changed:
        yield f"= {change.name}: no restart; changes {', '.join(change.what)}"
    if difference.proxy:
        yield f"= proxy: no restart; changes {', '.join(difference.proxy)}"
    if difference.fixed:
        stay = "stays as it is" if len(difference.fixed) == 1 else "stay as they are"
        yield f"! proxy: {', '.join(difference.fixed)} {stay} until the set is started anew"


def _because(change: Change) -> str:
    return f", for {', '.join(change.what)}" if change.what else ""


def confirmed() -> bool:
    """Whether the operator says yes. Raises UsageError where nobody is there to be asked."""
    if not sys.stdin.isatty():
        raise click.UsageError("nobody is here to be asked: say --yes, or --dry-run to see what would be done")
    return confirm("apply this?", default=False)


def apply_plan(plan: Plan, first: Callable[[], None] = lambda: None) -> None:
    """Write the plan down for the running set, less what that holds as it is, and tell the health plugin.

    `first` runs when nobody else can change what the set goes by; where it raises, nothing is done.
    Raises CircusError where the plan cannot be written or nobody takes it; another reload waits for this one's end.
    """
    from vllm_circus.bus.command import send_command
    from vllm_circus.bus.messages import CommandMessage
    from vllm_circus.files import file_errors
    from vllm_circus.plan.held import as_held, held_back
    from vllm_circus.plan.types import load_plan
    from vllm_circus.render import render_files, write_files
    from vllm_circus.stores.lastread import note_read
    from vllm_circus.supervise.lock import hold_change
    from vllm_circus.supervise.secrets import renew_secrets

    instance = plan.instance
    with file_errors(), hold_change(instance, say):
        running, wanted = load_plan(instance.plan.read_bytes()), plan
        plan = as_held(running, wanted)
        files = list(render_files(plan))  # may raise, and nothing is to be done then
        first()
        renew_secrets(plan)
        write_files(files, instance.run_dir)
        note_read(wanted, held_back(running.proxy, wanted.proxy))
        reply = send_command(instance.commands, CommandMessage("reload", ()), ANSWER_WITHIN)
    if reply.error:
        raise CircusError(reply.error, hint=f"see `{words(instance, 'logs health')}`")
    say(f"the set goes by {Path(plan.source).name} now")


def _wait(instance: Instance, difference: Difference, before: States, timeout: float | None) -> None:
    """Until what is new and what is restarted is ready, and what is gone has ended. Raises NotRunning."""
    from vllm_circus.cli.waiting import check_failed, wait_for, wait_gone
    from vllm_circus.view.goals import judge_restart, judge_start

    running = [change.name for change in difference.restarted if _runs(before.get(change.name))]
    failed = wait_for(instance, difference.added, judge_start, before={}, timeout=timeout)
    failed |= wait_for(instance, running, judge_restart, before=before, timeout=timeout)
    wait_gone(instance, difference.removed, timeout=timeout)
    check_failed(instance, failed)


def _runs(state: ModelState | None) -> bool:
    """Whether it gets a new process: what is at rest or asleep waits for whoever asks for it."""
    if state is None or state.on_call:
        return False
    return state.pid is not None or state.state in {"backoff", "failed"}
