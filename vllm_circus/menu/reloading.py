"""Changes of a running set that are shown before they are made: reload, a model added, a model removed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_circus.view.table import Cell

if TYPE_CHECKING:
    from vllm_circus.cli.change import Proposal, TextEdit
    from vllm_circus.menu.context import Context
    from vllm_circus.paths import Instance
    from vllm_circus.plan.difference import Difference


def reload_file(context: Context, instance: Instance) -> None:
    """What the set's models file as it is now would change, and that done if somebody says so.

    Raises ConfigError with every fault of the file, FileGone where there is none any more, and NotRunning.
    """
    from vllm_circus.cli.common import build_plan, meant_file, need_running
    from vllm_circus.cli.reload import carry_out, difference_to, note_unapplied

    need_running(instance)
    plan = build_plan(instance, meant_file(instance, None))
    difference = difference_to(plan)
    _show(context, difference)
    if not difference.applies:
        note_unapplied(plan, difference)
        context.asker.pause()
        return
    if not context.asker.confirm("Apply this?", default=False):
        context.asker.say("nothing was changed")
        return
    try:
        carry_out(plan, difference, wait=True, timeout=None)
    except KeyboardInterrupt:
        context.asker.say("no longer waiting; what was begun goes on")


def apply_edit(context: Context, instance: Instance, edit: TextEdit, question: str) -> None:
    """Change the running set's models file and the set with it, after showing what that does.

    Raises ConfigError where the result would have faults, and CircusError where the file was changed meanwhile.
    """
    from vllm_circus.cli.change import carry_out, propose

    proposal = propose(instance, None, edit)
    if proposal.difference is not None:
        _show(context, proposal.difference)
    context.asker.say(f"This is written into {proposal.path}.")
    if not context.asker.confirm(question, default=True):
        context.asker.say("nothing was changed")
        return
    try:
        carry_out(proposal)
    except KeyboardInterrupt:
        _say_left(context, proposal)


def _say_left(context: Context, proposal: Proposal) -> None:
    from vllm_circus.cli.change import is_written

    written = is_written(proposal)
    context.asker.say("no longer waiting; what was begun goes on" if written else "nothing was changed")


def _show(context: Context, difference: Difference) -> None:
    from vllm_circus.cli.reload import difference_lines

    context.asker.show((Cell(line),) for line in difference_lines(difference))
    for warning in difference.warnings:
        context.asker.say(f"warning: {warning}")
