"""`vllm-circus start`, `stop` and `restart`: wishes for single models, carried out by the health plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from vllm_circus.cli.common import (
    Session,
    instance_option,
    known_model,
    model_argument,
    need_outline,
    need_running,
    say,
    say_changed,
)
from vllm_circus.errors import CircusError

if TYPE_CHECKING:
    from vllm_circus.bus.messages import Verb
    from vllm_circus.paths import Instance

#: Stands for every model of the set; no model can be called so.
ALL = "all"
ANSWER_WITHIN = 10.0  # seconds

_no_wait = click.option("--no-wait", is_flag=True, help="Return at once instead of when it has come true.")
_timeout = click.option("--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="Wait no longer than this.")


@click.command(short_help="Start models.")
@model_argument(ALL, required=True)
@_no_wait
@_timeout
@instance_option
@click.pass_obj
def start(session: Session, names: tuple[str, ...], no_wait: bool, timeout: float | None) -> None:
    """Start models, disabled and failed ones too; `all` stands for every one. Returns when they are ready."""
    operate(session.instance, "start", names, wait=not no_wait, timeout=timeout)


@click.command(short_help="Stop models: requests in flight may end first.")
@model_argument(ALL, required=True)
@_no_wait
@_timeout
@instance_option
@click.pass_obj
def stop(session: Session, names: tuple[str, ...], no_wait: bool, timeout: float | None) -> None:
    """Stop models: no new requests, those in flight may end, then the engine ends. `all` stands for every one."""
    operate(session.instance, "stop", names, wait=not no_wait, timeout=timeout)


@click.command(short_help="Stop models and start them again.")
@model_argument(ALL, required=True)
@_no_wait
@_timeout
@instance_option
@click.pass_obj
def restart(session: Session, names: tuple[str, ...], no_wait: bool, timeout: float | None) -> None:
    """Stop models as `stop` does and start them again; `all` stands for every one. Returns when they are ready."""
    operate(session.instance, "restart", names, wait=not no_wait, timeout=timeout)


def operate(instance: Instance, verb: Verb, names: tuple[str, ...], *, wait: bool, timeout: float | None) -> None:
    """Send the wish, and wait until it has come true.

    Raises:
        UnknownModel: a name that is not configured.
        NotRunning: the set does not run, or a model did not get there.
        CircusError: the health plugin refused.
    """
    need_running(instance)
    if verb != "stop":
        say_changed(instance)
    outline = need_outline(instance)
    known = [model.name for model in outline.models]
    wanted = tuple(known) if ALL in names else tuple(dict.fromkeys(known_model(name, known, outline) for name in names))
    from vllm_circus.bus.command import send_command
    from vllm_circus.bus.messages import CommandMessage
    from vllm_circus.cli.waiting import Verdict, check_failed, current_states, judge_of, wait_for

    before = current_states(instance, ANSWER_WITHIN)  # which also waits for a health plugin that is just starting
    reply = send_command(instance.commands, CommandMessage(verb, wanted), ANSWER_WITHIN)
    if reply.error:
        raise CircusError(reply.error)
    idle = {name: before[name] for name in wanted if name not in reply.accepted and name in before}
    for name, state in idle.items():
        say(f"{name}: nothing to do, it is {state.state}")
    judge = judge_of(verb)
    waiting = [name for name in wanted if name not in idle or judge(None, idle[name]) is not Verdict.DONE]
    if wait and waiting:
        failed = wait_for(instance, waiting, judge, before=before, timeout=timeout)
        check_failed(instance, failed, "stopped" if verb == "stop" else "ready")
