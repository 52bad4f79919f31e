"""`vllm-circus start`, `stop`, `restart`, `sleep`, `wake`: wishes for single models, carried out by the health plugin.

A model with replicas is meant with all of them, `NAME-1` with that one alone.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Literal

import click

from vllm_circus.cli.common import (
    ALL,
    Session,
    instance_option,
    known_model,
    need_outline,
    need_running,
    say,
    say_changed,
    timeout_option,
)
from vllm_circus.cli.completing import model_argument
from vllm_circus.errors import CircusError
from vllm_circus.lifecycle.states import State

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vllm_circus.bus.messages import ModelState, Verb
    from vllm_circus.cli.waiting import States
    from vllm_circus.paths import Instance
    from vllm_circus.view.outline import Outline, OutlineModel

ANSWER_WITHIN = 10.0  # seconds
_GOALS = {"stop": "stopped", "sleep": "asleep"}
_ENDING = frozenset({State.DRAINING, State.STOPPING})

_no_wait = click.option("--no-wait", is_flag=True, help="Return at once instead of when it has come true.")
_timeout = timeout_option("Wait no longer than this.")


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
    """Stop models as `stop` does and start them again; `all` stands for every one. Returns when they are ready.

    The replicas of a model take turns, so that one always serves: the next one when the former is ready again.
    """
    operate(session.instance, "restart", names, wait=not no_wait, timeout=timeout)


@click.command(short_help="Send models to sleep: their GPU memory is given back.")
@model_argument(ALL, required=True)
@click.option(
    "--level",
    type=click.Choice(["1", "2"]),
    default="1",
    show_default=True,
    help="1 keeps the weights in the machine's memory, 2 reads them again from disk.",
)
@_no_wait
@_timeout
@instance_option
@click.pass_obj
def sleep(session: Session, names: tuple[str, ...], level: str, no_wait: bool, timeout: float | None) -> None:
    """Send models to sleep that have `sleep: true`; the next request wakes them. Returns when they sleep.

    Requests in flight may end first; where they do not within `drain_timeout`, the model goes on serving.
    """
    operate(session.instance, "sleep", names, wait=not no_wait, timeout=timeout, level=2 if level == "2" else 1)


@click.command(short_help="Wake models up.")
@model_argument(ALL, required=True)
@_no_wait
@_timeout
@instance_option
@click.pass_obj
def wake(session: Session, names: tuple[str, ...], no_wait: bool, timeout: float | None) -> None:
    """Wake models up. Returns when they serve."""
    operate(session.instance, "wake", names, wait=not no_wait, timeout=timeout)


def operate(
    instance: Instance,
    verb: Verb,
    names: tuple[str, ...],
    *,
    wait: bool,
    timeout: float | None,
    level: Literal[1, 2] = 1,
) -> None:
    """Send the wish, and wait until it has come true. Replicas of a model are restarted one after the other.

    Raises:
        UnknownModel: a name that is not configured.
        NotRunning: the set does not run, or a model did not get there.
        CircusError: the health plugin refused.
    """
    need_running(instance)
    if verb != "stop":
        say_changed(instance)
    wanted = meant(names, need_outline(instance))
    from vllm_circus.cli.waiting import check_failed, current_states

    before = current_states(instance, ANSWER_WITHIN)  # which also waits for a health plugin that is just starting
    turns = one_after_another(wanted, before) if verb == "restart" and wait else [tuple(wanted)]
    deadline = None if timeout is None else time.monotonic() + timeout
    failed = _take_turns(turns, _Order(instance, verb, wait, deadline, level))
    check_failed(instance, failed, _GOALS.get(verb, "ready"))


def meant(names: tuple[str, ...], outline: Outline) -> list[OutlineModel]:
    """The engines that the names stand for, each once. Raises UnknownModel."""
    if ALL in names:
        return list(outline.models)
    known = outline.targets
    return list(dict.fromkeys(each for name in names for each in outline.engines(known_model(name, known, outline))))


def one_after_another(engines: Iterable[OutlineModel], states: States) -> list[tuple[OutlineModel, ...]]:
    """The turns in which to restart them: no two replicas of a model in one, those that serve nobody now first."""
    groups: dict[str, list[OutlineModel]] = {}
    for engine in engines:
        groups.setdefault(engine.group, []).append(engine)
    for replicas in groups.values():
        replicas.sort(key=lambda replica: replica.name in states and states[replica.name].state.routable)
    return [tuple(engine for engine in turn if engine) for turn in zip_longest(*groups.values())]


@dataclass(frozen=True)
class _Order:
    """A wish: `deadline` is when waiting ends, on the steady clock."""

    instance: Instance
    verb: Verb
    wait: bool
    deadline: float | None
    level: Literal[1, 2] = 1


def _take_turns(turns: list[tuple[OutlineModel, ...]], order: _Order) -> dict[str, ModelState]:
    """Carry out turn after turn; a model one of whose replicas did not come up is left alone from there on."""
    failed: dict[str, ModelState] = {}
    left = [engine.name for turn in turns for engine in turn]
    lost: set[str] = set()
    try:
        for turn in turns:
            names = [engine.name for engine in turn if engine.group not in lost]
            left = [name for name in left if name not in names]
            failed |= _ask(names, order) if names else {}
            lost |= {engine.group for engine in turn if engine.name in failed}
    finally:
        if left:
            say(f"not restarted: {', '.join(left)}")
    return failed


def _ask(names: list[str], order: _Order) -> dict[str, ModelState]:
    """Send the wish for some engines and wait; returns those that did not get there."""
    from vllm_circus.bus.command import send_command
    from vllm_circus.bus.messages import CommandMessage
    from vllm_circus.cli.waiting import current_states, wait_for
    from vllm_circus.view.goals import Verdict, judge_of

    before = current_states(order.instance, ANSWER_WITHIN)
    reply = send_command(order.instance.commands, CommandMessage(order.verb, tuple(names), order.level), ANSWER_WITHIN)
    if reply.error:
        raise CircusError(reply.error)
    idle = {name: before[name] for name in names if name not in reply.accepted and name in before}
    for name, state in idle.items():
        say(f"{name}: {_idle_words(order.verb, state)}")
    judge = judge_of(order.verb)
    waiting = [name for name in names if name not in idle or judge(None, idle[name]) is not Verdict.DONE]
    if not order.wait or not waiting:
        return {}
    timeout = None if order.deadline is None else max(0.0, round(order.deadline - time.monotonic(), 1))
    return wait_for(order.instance, waiting, judge, before=before, timeout=timeout)


def _idle_words(verb: Verb, state: ModelState) -> str:
    """Why the wish changes nothing. What is to run and yet ends, ends for a restart or was wanted again meanwhile."""
    if verb in {"start", "wake"} and state.state in _ENDING:
        return f"it is {state.state}, and comes back by itself"
    return f"nothing to do, it is {state.state}"
