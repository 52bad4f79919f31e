"""Starting what was set up: how each model comes along, and what to do about one that does not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from vllm_circus.menu.ask import Back, Choice, Heading

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from vllm_circus.bus.messages import ModelState
    from vllm_circus.menu.context import Context
    from vllm_circus.screens.starting import Outcome

_Next = Literal["retry", "without", "edit", "leave"]


def start(context: Context, path: Path) -> str:
    """Start the set, wait until it is ready, and ask about what fails.

    Returns the model that somebody wants to edit, else nothing. Raises CircusError where the set does not start.
    """
    from vllm_circus.cli.common import need_outline
    from vllm_circus.cli.up import start_set

    start_set(context.instance, path)
    names = tuple(model.name for model in need_outline(context.instance).models if model.enabled)
    try:
        return _watch(context, names)
    except KeyboardInterrupt:
        context.asker.say("no longer waiting; the set goes on starting")
        return ""


def _watch(context: Context, names: tuple[str, ...]) -> str:
    """Until all are ready, or somebody decided on those that are not."""
    waited = names
    while True:
        outcome = _show(context, waited)
        if outcome.kind == "edit":
            return outcome.model
        if not outcome.failed:
            _tell(context, names, outcome)
            return ""
        answer, model = _ask_failed(context, outcome.failed)
        if answer == "edit":
            return model
        if answer == "leave":
            return ""
        waited = _carry_out(context, answer, model, outcome, waited)


def _show(context: Context, names: tuple[str, ...]) -> Outcome:
    from vllm_circus.cli.starting import StartGuard
    from vllm_circus.screens.starting import EDIT, RETRY, WITHOUT
    from vllm_circus.screens.startup import show_startup

    return show_startup(
        context.instance,
        names,
        choices=(RETRY, WITHOUT, EDIT),
        plain=context.plain,
        guard=StartGuard(context.instance, names, None),
    )


def _tell(context: Context, names: tuple[str, ...], outcome: Outcome) -> None:
    """How it ended, for those who read on below the screen. Raises NotRunning where the set is gone."""
    from vllm_circus.cli.common import need_outline, need_running

    if outcome.kind == "gone":
        need_running(context.instance)
    ready = [name for name in names if name not in outcome.waiting and name not in outcome.left_out]
    outline = need_outline(context.instance)
    if outcome.kind == "ready":
        context.asker.say(f"ready: {', '.join(ready) or 'none'}; proxy on {outline.url}")
    else:
        context.asker.say(f"the set goes on starting: {', '.join(outcome.waiting)}; proxy on {outline.url}")
    if outcome.left_out:
        context.asker.say(f"left out: {', '.join(outcome.left_out)}")


def _ask_failed(context: Context, failed: Mapping[str, ModelState]) -> tuple[_Next, str]:
    """What becomes of the first model that failed."""
    from vllm_circus.logline import clean

    name, state = next(iter(failed.items()))
    choices: list[Choice[_Next] | Heading] = [
        Choice("retry", "Retry", "start it again"),
        Choice("edit", "Edit", "stop the set, and change what is wrong"),
        Choice("without", "Continue without it", "the other models go on"),
    ]
    title = f"{name} did not start: {clean(state.reason) or state.state}\nWhat next?"
    try:
        return context.asker.choose(title, choices), name
    except Back:
        return "leave", name


def _carry_out(
    context: Context, answer: _Next, name: str, outcome: Outcome, waited: tuple[str, ...]
) -> tuple[str, ...]:
    """Have it started again, or stopped; returns who is waited for then."""
    from vllm_circus.cli.operate import operate

    if answer == "retry":
        operate(context.instance, "start", (name,), wait=False, timeout=None)
        return waited
    operate(context.instance, "stop", (name,), wait=True, timeout=None)
    return tuple(one for one in waited if one != name and one not in outcome.left_out)
