"""`vllm-circus models`: the models on this disk, and how they come here and go."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from vllm_circus.cli import stock
from vllm_circus.cli.common import Session, instance_option, print_lines, say, terminal_width, words
from vllm_circus.cli.completing import folders, named
from vllm_circus.cli.shelves import group_of, json_option, yes_option
from vllm_circus.cli.sure import confirm

if TYPE_CHECKING:
    from vllm_circus.catalogue.hub import HubModel
    from vllm_circus.catalogue.types import LocalModel
    from vllm_circus.paths import Instance
    from vllm_circus.view.catalogue import Stock

F = TypeVar("F", bound=Callable[..., Any])

models = group_of("models", "List, find, fetch and remove the models on this disk.")


def _model_argument(command: F) -> F:
    """Adds NAME, which the shell completes from this disk."""

    complete = named(lambda context: (model.id for model in stock.look(context.ensure_object(Session).instance).models))
    return click.argument("name", shell_complete=complete)(command)


@models.command("list")
@json_option
@instance_option
@click.pass_obj
def _list(session: Session, *, as_json: bool) -> None:
    """List every model in Hugging Face's cache and in the folders of the settings, and whether it fits now."""
    survey = stock.look(session.instance)
    _print(stock.with_rooms(survey.models), survey.models, as_json=as_json, notes=survey.notes)
    if not survey.models and not as_json:
        say(f"no model is on this disk: `{words(session.instance, 'models pull ID')}` fetches one")


@models.command("search")
@click.argument("text")
@click.option("--hub", is_flag=True, help="Search the Hugging Face hub as well.")
@json_option
@instance_option
@click.pass_obj
def _search(session: Session, text: str, *, hub: bool, as_json: bool) -> None:
    """Search the models on this disk for TEXT: in names, architectures, kinds and bases."""
    survey = stock.look(session.instance)
    shown = stock.matching(survey.models, text)
    if as_json:
        there = _hub_documents(stock.search_hub(session.instance, text)) if hub else None
        _print(stock.with_rooms(survey.models), shown, as_json=True, notes=survey.notes, hub=there)
        return
    _print(stock.with_rooms(survey.models), shown, as_json=False, notes=survey.notes)
    if not shown:
        say(f"nothing on this disk is like {text!r}")
    if hub:
        _print_hub(session.instance, text, {model.id for model in survey.models})


def _print(
    all_of_them: Stock,
    shown: Sequence[LocalModel],
    *,
    as_json: bool,
    notes: Iterable[str],
    hub: list[dict[str, object]] | None = None,
) -> None:
    from vllm_circus.logline import clean
    from vllm_circus.view.catalogue import list_lines, model_document

    if as_json:
        document: dict[str, object] = {"models": [model_document(all_of_them, model) for model in shown]}
        document |= {"notes": list(notes)} | ({} if hub is None else {"hub": hub})
        click.echo(json.dumps(document, indent=2))
        return
    if shown:
        print_lines(list_lines(all_of_them, shown, terminal_width()))
    for note in notes:
        say(f"note: {clean(note)}")


def _hub_documents(found: Iterable[HubModel]) -> list[dict[str, object]]:
    from dataclasses import asdict

    return [asdict(model) for model in found]


def _print_hub(instance: Instance, text: str, here: set[str]) -> None:
    from vllm_circus.view.catalogue import hub_lines

    found = stock.search_hub(instance, text)
    click.echo()
    if not found:
        say(f"the hub has nothing like {text!r}")
        return
    print_lines(hub_lines(found, here, terminal_width()))
    say(f"`{words(instance, 'models pull ID')}` fetches one")


@models.command("show")
@_model_argument
@json_option
@instance_option
@click.pass_obj
def _show(session: Session, name: str, *, as_json: bool) -> None:
    """Show everything about one model: its files, figures, adapters, who uses it, and what to type next."""
    from vllm_circus.catalogue.files import cut_short, files_of
    from vllm_circus.facts import Disk
    from vllm_circus.view.catalogue import model_document, show_lines

    survey = stock.look(session.instance)
    model = stock.find_one(survey.models, name)
    rooms, uses = stock.with_rooms(survey.models), stock.uses_of(session.instance, model)
    files, faults = files_of(model, Disk()), cut_short(model, Disk())
    if as_json:
        more = {"files": dict(files), "damaged": list(faults), "used_by": list(map(str, uses))}
        click.echo(json.dumps(model_document(rooms, model) | more, indent=2))
        return
    print_lines((line, False) for line in show_lines(rooms, model, files, faults, uses))
    for line in _next(session.instance, model, survey.models):
        say(line)


def _next(instance: Instance, model: LocalModel, all_of_them: Sequence[LocalModel]) -> Iterable[str]:
    """What to type next."""
    import shlex

    from vllm_circus.catalogue.adapters import bases_of

    name = shlex.quote(model.id)
    if not model.complete and model.source == "hub":
        commands = [f"models pull {name}"]
    elif model.kind == "adapter":
        base = next((base.id for base, _ in bases_of(model, all_of_them)), "BASE")
        commands = [f"add {shlex.quote(base)} --lora {shlex.quote(f'{Path(model.id).name}={model.id}')}"]
    else:
        commands = [f"fit {name}"] * (model.kind != "gguf") + [f"add {name}"]
    for command in commands if model.complete or model.source == "hub" else ():
        yield f"next: `{words(instance, command)}`"


@models.command("pull")
@click.argument("model_id", metavar="ID")
@click.option("--revision", metavar="R", help="A branch, a tag or a commit.  [default: main]")
@click.option("--include", multiple=True, metavar="GLOB", help="Only files like this; may be given several times.")
@instance_option
@click.pass_obj
def _pull(session: Session, model_id: str, *, revision: str | None, include: tuple[str, ...]) -> None:
    """Fetch a model from the Hugging Face hub into its cache.

    Broken off, it goes on the next time: files that are whole stay. Without --include, the same weights in another form
    are left out. ID:KIND is a GGUF file of that kind. The token is that of HF_TOKEN, or of the settings' token_file.
    """
    from vllm_circus.cli.pulling import pull

    click.echo(str(pull(session.instance, model_id, revision, include)))


@models.command("rm")
@_model_argument
@yes_option
@click.option("--force", is_flag=True, help="Also where it runs, or something saved names it.")
@instance_option
@click.pass_obj
def _rm(session: Session, name: str, *, yes: bool, force: bool) -> None:
    """Remove a model from this disk, after showing what would go. What runs or is named is kept, unless forced."""
    from vllm_circus.catalogue.removal import carry_out
    from vllm_circus.view.catalogue import removal_lines
    from vllm_circus.view.units import size

    survey = stock.look(session.instance)
    model = stock.find_one(survey.models, name)
    removal = stock.propose_removal(session.instance, survey, model, force=force)
    say(f"{model.id}: {size(removal.size)} would be free")
    for line in removal_lines(removal):
        say(line)
    if not yes and not _sure(model):
        say("nothing was removed")
        return
    say(f"removed {model.id}: {size(carry_out(removal))} are free")


def _sure(model: LocalModel) -> bool:
    """What the hub gives again is asked about; what is in a folder of one's own has to be named."""
    if not sys.stdin.isatty():
        raise click.UsageError("nobody is here to be asked: say --yes")
    if model.source == "hub":
        return confirm("remove it?", default=False)
    last = Path(model.id).name
    answer: str = click.prompt(f"type {last} to remove it", default="", show_default=False, err=True)
    return answer == last


@models.command("folders")
@click.argument("action", metavar="[add|rm]", type=click.Choice(("add", "rm")), required=False)
@click.argument("path", metavar="[PATH]", required=False, shell_complete=folders)
@json_option
@instance_option
@click.pass_obj
def _folders(session: Session, action: str | None, path: str | None, *, as_json: bool) -> None:
    """List the folders that are searched for models beside Hugging Face's cache; `add` and `rm` change them."""
    if action is None:
        folders = [str(folder) for folder in stock.model_folders(session.instance)]
        if as_json:
            click.echo(json.dumps({"folders": folders}, indent=2))
            return
        for folder in folders:
            click.echo(folder)
        if not folders:
            say(f"none: `{words(session.instance, 'models folders add PATH')}` adds one")
        return
    if path is None:
        raise click.UsageError(f"`folders {action}` needs a PATH")
    if action == "add":
        say(f"{stock.add_folder(session.instance, path, say)} is searched from now on")
    else:
        say(f"{stock.remove_folder(session.instance, path, say)} is not searched any more; nothing in it was touched")
