"""`vllm-circus config`: models files that are kept under a name, which `up NAME` and others take."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vllm_circus.cli import shelves
from vllm_circus.cli.common import Session, instance_option, meant_file, running_pid, say, words
from vllm_circus.cli.completing import files, models_files
from vllm_circus.cli.shelves import Family, name_argument
from vllm_circus.errors import CircusError, ConfigError

if TYPE_CHECKING:
    from vllm_circus.paths import Instance
    from vllm_circus.stores.schema import ModelsFile
    from vllm_circus.stores.shelf import Entry, Shelf
    from vllm_circus.view.table import Line


def _shelf(instance: Instance) -> Shelf[ModelsFile]:
    from vllm_circus.stores.shelf import configuration_shelf

    return configuration_shelf(instance, say)


def running_configurations(instance: Instance) -> dict[Path, str]:
    """The models files of all sets that run now, and the instances that run them."""
    from vllm_circus.cli.common import running_beside
    from vllm_circus.view.outline import read_plan_outline

    found = {}
    for each in (instance, *running_beside(instance)):
        outline = read_plan_outline(each) if running_pid(each) is not None else None
        if outline is not None:
            found[Path(outline.source)] = each.name
    return found


def _guard(instance: Instance, name: str, taken_away: bool) -> None:
    """A set that runs goes on needing its file: it may be edited, and not taken away."""
    runs = running_configurations(instance).get(_shelf(instance).path(name))
    if taken_away and runs is not None:
        raise CircusError(f"{name} runs now, as instance {runs!r}", hint="stop it first, or save it under another name")


def _after(instance: Instance, name: str) -> None:
    """Tell what it comes to on this machine, and that a running set knows nothing of it."""
    from vllm_circus.cli.common import build_plan

    path = _shelf(instance).path(name)
    try:
        build_plan(instance, path)
    except ConfigError as error:
        for fault in error.faults:
            say(f"warning: {fault}")
    if path in running_configurations(instance):
        say(f"it runs now; `{words(instance, 'reload')}` applies the change")


def _lost(instance: Instance, name: str) -> str:
    from vllm_circus.stores.drafts import has_draft

    return "the draft of changes to it" if has_draft(instance, name) else ""


def _follow(instance: Instance, old: str, new: str) -> None:
    from vllm_circus.stores.drafts import follow

    follow(instance, old, new)


FAMILY = Family("configuration", "config", _shelf, _guard, _after, _lost, _follow)
config = shelves.group_of("config", "Keep models files under a name: `up NAME`, `check NAME` and others take it.")
shelves.add_common(config, FAMILY)


@config.command("list")
@shelves.json_option
@instance_option
@click.pass_obj
def list_(session: Session, *, as_json: bool) -> None:
    """List the saved configurations: models, GPUs, port, last change, and whether it runs now."""
    entries = _shelf(session.instance).entries()
    running = running_configurations(session.instance)
    if as_json:
        shelves.print_json([_document(session.instance, entry, running) for entry in entries])
        return
    if not entries:
        say("no configuration is saved; `vllm-circus config save NAME` saves the present one")
        return
    from vllm_circus.view.table import Column

    columns = (
        Column("NAME"),
        Column("MODELS", rank=2),
        Column("GPU", rank=3),
        Column("PORT", number=True, rank=4),
        Column("CHANGED", rank=5),
        Column("NOW", rank=1),
    )
    shelves.print_table(columns, [_row(entry, running) for entry in entries])
    for entry in entries:
        for fault in _faults(session.instance, entry):
            say(f"warning: {fault}")


@config.command()
@name_argument(FAMILY)
@shelves.json_option
@instance_option
@click.pass_obj
def show(session: Session, name: str, *, as_json: bool) -> None:
    """Print a saved configuration as it is written."""
    shelf = _shelf(session.instance)
    if not as_json:
        click.echo(shelf.read_text(name), nl=False)
        return
    shelf.need(name)
    (entry,) = (entry for entry in shelf.entries() if entry.name == name)
    document = _document(session.instance, entry, running_configurations(session.instance))
    shelves.print_json(document | {"text": shelf.read_text(name)})


@config.command()
@click.argument("name")
@click.argument("file", required=False, shell_complete=models_files)
@shelves.replace_option
@instance_option
@click.pass_obj
def save(session: Session, name: str, file: str | None, *, replace: bool) -> None:
    """Save a models file under a name: FILE, by default the running set's, else the instance's own.

    It is copied; relative paths in it are made absolute, so that they lead where they did.
    """
    say(f"wrote {save_configuration(session.instance, name, file, replace=replace)}")


def save_configuration(instance: Instance, name: str, file: str | None, *, replace: bool = False) -> Path:
    """Save a models file (a path, a saved name, None for the present one) under a name; returns the new file.

    Raises EntryExists, ConfigError with every fault of the file, and CannotEdit where its paths cannot be changed.
    """
    from vllm_circus.stores.inplace import read_text
    from vllm_circus.stores.reading import check_models_file
    from vllm_circus.stores.writing import with_own_paths

    source = meant_file(instance, file)
    shelf, text = _shelf(instance), read_text(source)
    check_models_file(text.encode(), source)
    if source.parent != shelf.folder:
        text = with_own_paths(text, source.parent, Path.exists)
    return shelf.write_text(name, text, replace=replace)


@config.command("import")
@click.argument("file", shell_complete=files)
@click.option("--name", metavar="NAME", help="What it is called here; by default as the file, or as a command's model.")
@shelves.replace_option
@click.option("--dry-run", is_flag=True, help="Only show what would be taken over, and what not.")
@instance_option
@click.pass_obj
def import_(session: Session, file: str, *, name: str | None, replace: bool, dry_run: bool) -> None:
    """Take a configuration over from FILE (- is stdin): a models file, an export, a command, or one of vllm-cli's.

    Every thing that cannot be taken over is told, and what is not on this machine is pointed out.
    """
    shelves.import_file(session.instance, "configuration", file, name=name, replace=replace, dry_run=dry_run)


@config.command()
@name_argument(FAMILY)
@shelves.output_option
@shelves.yes_option
@instance_option
@click.pass_obj
def export(session: Session, name: str, *, output: str | None, yes: bool) -> None:
    """Write a configuration as one file for another machine, with the profiles that it uses. No secret is in it."""
    from vllm_circus.cli.porting import export_configuration

    text, told = export_configuration(session.instance, name)
    shelves.write_export(text, output, told, yes=yes)


def _document(instance: Instance, entry: Entry[ModelsFile], running: dict[Path, str]) -> dict[str, Any]:
    found = entry.value.loaded.config if entry.value else None
    return {
        "name": entry.name,
        "path": str(entry.path),
        "changed": entry.changed,
        "running": running.get(entry.path),
        "models": [model.name for model in found.models] if found else [],
        "gpus": _gpus(entry),
        "port": found.proxy.port if found else None,
        "faults": _faults(instance, entry),
    }


def _faults(instance: Instance, entry: Entry[ModelsFile]) -> list[str]:
    """What is wrong with the file, or with its names where it can be read."""
    from vllm_circus.stores.library import faults_of_names

    found = faults_of_names(entry.value.loaded, instance) if entry.value else ()
    return [*shelves.faults_of(entry), *map(str, found)]


def _gpus(entry: Entry[ModelsFile]) -> list[int]:
    models = entry.value.loaded.config.models if entry.value else []
    return sorted({gpu for model in models for gpu in model.gpus or ()})


def _row(entry: Entry[ModelsFile], running: dict[Path, str]) -> Line:
    from vllm_circus.logline import clean
    from vllm_circus.view.table import Cell

    name, changed = Cell(clean(entry.name), "bold"), Cell(shelves.when(entry.changed))
    if entry.value is None:
        return name, Cell("cannot be read", "bad"), Cell("-"), Cell("-"), changed, Cell("-")
    found = entry.value.loaded.config
    now = running.get(entry.path)
    return (
        name,
        Cell(", ".join(model.name for model in found.models)),
        Cell(",".join(map(str, _gpus(entry))) or "-"),
        Cell(str(found.proxy.port)),
        changed,
        Cell("-") if now is None else Cell("running" if now == "default" else f"running ({now})", "good"),
    )
