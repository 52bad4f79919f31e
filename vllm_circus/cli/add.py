"""`vllm-circus add` and `remove`: models come into a set and leave it, without an editor."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from vllm_circus.cli.common import Session, instance_option, running_pid, say, say_warnings, timeout_option, words
from vllm_circus.cli.completing import configurations, folders, models_in_file, shortcuts
from vllm_circus.cli.values import described, gpus_of, model_options, told_by_option
from vllm_circus.errors import CircusError

if TYPE_CHECKING:
    from collections.abc import Callable

    from vllm_circus.cli.change import Proposal
    from vllm_circus.paths import Instance

#: How often others may be faster before we give up.
TRIES = 20

_to = click.option(
    "--to",
    metavar="NAME",
    shell_complete=configurations,
    help="Change that saved configuration instead of the running set's file.",
)
_yes = click.option("-y", "--yes", is_flag=True, help="Do it without asking.")
_dry_run = click.option("--dry-run", is_flag=True, help="Only show what would be done.")
_no_wait = click.option("--no-wait", is_flag=True, help="Return at once instead of when it has come true.")
_timeout = timeout_option("Wait no longer than this.")


@click.command(short_help="Add a model to the running set, or to a saved configuration.")
@click.argument("model", required=False, shell_complete=folders)
@click.option("--name", metavar="NAME", help="What it is called; by default made from MODEL.")
@click.option("--gpus", metavar="LIST", help="Indices, e.g. 0,1; none for the CPU.")
@click.option("--port", type=click.IntRange(1, 65535), metavar="N", help="Its loopback port; by default a free one.")
@click.option("--replicas", type=click.IntRange(1, 64), metavar="N", help="Engines that serve it side by side.")
@click.option("--shortcut", metavar="NAME", shell_complete=shortcuts, help="Begin with what that shortcut says.")
@model_options
@_to
@_yes
@_dry_run
@_no_wait
@_timeout
@instance_option
@click.pass_obj
def add(session: Session, /, *, model: str | None, to: str | None, yes: bool, **said: Any) -> None:
    """Add MODEL, a folder or a Hugging Face id, to the models file of the running set, and have the set go by it.

    Comments in the file stay. First shows what would be done, and asks. With --to it is added to that saved
    configuration, which is made if it is missing. The whole result is checked before anything is written.
    """
    from vllm_circus.cli.change import adding, propose
    from vllm_circus.stores.settings import read_settings
    from vllm_circus.stores.yamltext import plain

    how = How(yes, said.pop("dry_run"), not said.pop("no_wait"), said.pop("timeout"))
    entry, typed = model_entry(session.instance, model, **said)
    edit = adding(entry, plain(read_settings(session.instance).proxy))
    telling = partial(told_by_option, typed=typed)
    _change(lambda: propose(session.instance, to, edit, telling=telling), how)


@click.command(short_help="Take models out of the running set, or out of a saved configuration.")
@click.argument("names", metavar="NAME...", nargs=-1, required=True, shell_complete=models_in_file)
@_to
@_yes
@_dry_run
@_no_wait
@_timeout
@instance_option
@click.pass_obj
def remove(
    session: Session,
    names: tuple[str, ...],
    *,
    to: str | None,
    yes: bool,
    dry_run: bool,
    no_wait: bool,
    timeout: float | None,
) -> None:
    """Take models out of the models file of the running set; they are drained and stopped.

    First shows what would be done, and asks. Other models are not touched, in the file and as processes.
    """
    from vllm_circus.cli.change import propose, removing

    how = How(yes, dry_run, not no_wait, timeout)
    edit = removing(names, instead=_to_remove_all(session.instance, to))
    _change(lambda: propose(session.instance, to, edit, make=False), how)


def _to_remove_all(instance: Instance, to: str | None) -> str:
    """What whoever wants none of the models any more may do; empty where nothing is to be done."""
    if to is not None:
        return f"`{words(instance, f'config rm {to}')}` removes the configuration"
    return f"`{words(instance, 'down')}` ends the set" if running_pid(instance) is not None else ""


def model_entry(
    instance: Instance, model: str | None, *, shortcut: str | None, **said: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A model as it stands in a models file, and what of it the command line itself says. Raises CircusError."""
    from vllm_circus.cli.change import merged, name_for, own_path
    from vllm_circus.stores.shelf import shortcut_shelf
    from vllm_circus.stores.writing import model_from_shortcut

    name, gpus, port, replicas = (said.pop(key) for key in ("name", "gpus", "port", "replicas"))
    base = model_from_shortcut(shortcut_shelf(instance).read(shortcut)) if shortcut else {}
    if model is None and not base:
        raise click.UsageError("name a MODEL, or a --shortcut")
    rest = {"gpus": gpus_of(gpus) if gpus is not None else None, "port": port, "replicas": replicas}
    own = {key: value for key, value in (("name", name), ("model", model and own_path(model))) if value is not None}
    own |= {key: value for key, value in rest.items() if value is not None} | described(**said)
    entry = merged(base, own)
    return {"name": shortcut or name_for(entry["model"]), **entry}, own


@dataclass(frozen=True)
class How:
    """How a change is carried out: without asking, not at all, with or without waiting until it has come true."""

    yes: bool
    dry_run: bool
    wait: bool
    timeout: float | None


def _change(make: Callable[[], Proposal], how: How) -> None:
    """Make the change; where somebody else was faster, on what is there now, unless the operator has agreed to another.

    What contradicts the change of the other is refused when it is proposed anew.
    """
    from vllm_circus.stores.locking import ChangedMeanwhile

    for left in reversed(range(TRIES)):
        proposal = make()
        try:
            _settle(proposal, how)
        except ChangedMeanwhile as error:
            runs = proposal.difference is not None
            if not left or (runs and not how.yes):
                raise
            if runs:  # what it does is shown once more
                say(f"{error}; deciding anew")
        else:
            return


def _settle(proposal: Proposal, how: How) -> None:
    """Show what would be done, ask, and do it."""
    from vllm_circus.cli import change, reload

    if proposal.difference is None:
        say_warnings(proposal.plan.warnings if proposal.plan else ())
        for sentence in proposal.lacks:
            say(sentence)
    else:
        reload.show_difference(proposal.difference)
    if how.dry_run or (proposal.difference is not None and not how.yes and not reload.confirmed()):
        say("nothing was changed")
        return
    try:
        change.carry_out(proposal, wait=how.wait, timeout=how.timeout)
    except CircusError as error:
        if proposal.difference is not None and change.is_written(proposal):
            say(f"{proposal.path} has been changed all the same")
        raise error from None
