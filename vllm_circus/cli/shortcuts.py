"""`vllm-circus shortcuts`: models with their options, ready for `add --shortcut`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from vllm_circus.cli import shelves
from vllm_circus.cli.common import Session, instance_option, say
from vllm_circus.cli.completing import folders
from vllm_circus.cli.shelves import Family, name_argument
from vllm_circus.cli.values import described, model_options

if TYPE_CHECKING:
    from pathlib import Path

    from vllm_circus.paths import Instance
    from vllm_circus.stores.schema import Shortcut
    from vllm_circus.stores.shelf import Entry, Shelf
    from vllm_circus.view.table import Line


def _shelf(instance: Instance) -> Shelf[Shortcut]:
    from vllm_circus.stores.shelf import shortcut_shelf

    return shortcut_shelf(instance, say)


def _nothing(*_arguments: object) -> None:
    """A shortcut is nobody's but its own: what was added with it does not change with it."""


FAMILY = Family("shortcut", "shortcuts", _shelf, _nothing, _nothing)
shortcuts = shelves.group_of("shortcuts", "Keep models with their options, ready for `add --shortcut NAME`.")
shelves.add_common(shortcuts, FAMILY)
shelves.add_porting(shortcuts, "shortcut", FAMILY)


@shortcuts.command("list")
@shelves.json_option
@instance_option
@click.pass_obj
def list_(session: Session, *, as_json: bool) -> None:
    """List the shortcuts."""
    entries = _shelf(session.instance).entries()
    if as_json:
        shelves.print_json([_document(entry) for entry in entries])
        return
    if not entries:
        say("there is no shortcut; `vllm-circus shortcuts new NAME --model MODEL` makes one")
        return
    from vllm_circus.view.table import Column

    columns = (
        Column("NAME"),
        Column("MODEL"),
        Column("PROFILE", rank=2),
        Column("OPTIONS", rank=3),
        Column("FOR", rank=1),
    )
    shelves.print_table(columns, [_row(entry) for entry in entries])
    shelves.say_broken(entries)


@shortcuts.command()
@name_argument(FAMILY)
@shelves.json_option
@instance_option
@click.pass_obj
def show(session: Session, name: str, *, as_json: bool) -> None:
    """Print a shortcut as it is written."""
    shelf = _shelf(session.instance)
    text = shelf.read_text(name)
    if not as_json:
        click.echo(text, nl=False)
        return
    (entry,) = (entry for entry in shelf.entries() if entry.name == name)
    shelves.print_json(_document(entry) | {"text": text})


@shortcuts.command()
@click.argument("name")
@click.option("--model", required=True, metavar="MODEL", shell_complete=folders, help="A folder, or a Hugging Face id.")
@click.option("--description", metavar="TEXT", help="One line for lists.")
@model_options
@shelves.replace_option
@instance_option
@click.pass_obj
def new(session: Session, /, name: str, *, model: str, description: str | None, replace: bool, **said: Any) -> None:
    """Make a shortcut. `--arg KEY=null` takes an option of its profile away."""
    from vllm_circus.cli.change import own_path

    first = {"description": description} if description is not None else {}
    values = {**first, "model": own_path(model), **described(**said)}
    say(f"wrote {write_shortcut(session.instance, name, values, replace=replace)}")


def write_shortcut(instance: Instance, name: str, values: dict[str, Any], *, replace: bool = False) -> Path:
    """Keep a shortcut under that name. Raises EntryExists, and ConfigError with every fault of it."""
    from vllm_circus.stores.yamltext import dump_block

    return _shelf(instance).write_text(name, dump_block(values), replace=replace)


def _document(entry: Entry[Shortcut]) -> dict[str, Any]:
    from vllm_circus.stores.yamltext import plain

    rest = {"name": entry.name, "path": str(entry.path), "faults": shelves.faults_of(entry)}
    return {**(plain(entry.value) if entry.value else {}), **rest}


def _row(entry: Entry[Shortcut]) -> Line:
    from vllm_circus.logline import clean
    from vllm_circus.view.table import Cell

    name, shortcut = Cell(clean(entry.name), "bold"), entry.value
    if shortcut is None:
        return name, Cell("cannot be read", "bad"), Cell("-"), Cell("-"), Cell("-")
    return (
        name,
        Cell(clean(shortcut.model)),
        Cell(shortcut.profile or "-"),
        Cell(shelves.options_words(shortcut.args)),
        Cell(clean(shortcut.description) or "-"),
    )
