"""Saved configurations: models files under a name."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from vllm_circus.menu.kept import Deed, Kind, ask_name, free_name, open_kept
from vllm_circus.menu.lines import flat
from vllm_circus.view.table import Cell, Line

if TYPE_CHECKING:
    from vllm_circus.menu.context import Context
    from vllm_circus.paths import Instance
    from vllm_circus.stores.schema import ModelsFile


def open_configurations(context: Context) -> None:
    """List, show, check, change, rename, remove, import and export them."""
    open_kept(context, lambda: _kind(context))


def _kind(context: Context) -> Kind[ModelsFile]:
    from vllm_circus.cli.config import FAMILY
    from vllm_circus.menu.files import export_deed, import_entry, paste_entry
    from vllm_circus.stores.shelf import configuration_shelf

    return Kind(
        title="Saved configurations",
        shelf=configuration_shelf(context.instance, context.asker.say),
        family=FAMILY,
        summary=partial(summary, context.instance),
        details=details,
        adding=(import_entry("configuration"), paste_entry()),
        deeds=(
            Deed("Start", "launch the proxy with its models", start),
            Deed("Edit", "change it in the wizard", edit),
            Deed("Check", "what would run here, and what this machine does not have", check),
            Deed("Copy", "a new one like it", copy),
            export_deed("configuration"),
        ),
    )


def summary(instance: Instance, file: ModelsFile) -> str:
    """One line for a list: what it has, or what is wrong with its names."""
    from vllm_circus.stores.library import faults_of_names
    from vllm_circus.view.units import counted

    if wrong := faults_of_names(file.loaded, instance):
        return f"broken: {wrong[0]}"
    config = file.loaded.config
    names = ", ".join(model.name for model in config.models)
    return f"{counted(len(config.models), 'model')} on port {config.proxy.port}: {names}"


def details(name: str, file: ModelsFile) -> Iterator[Line]:
    """A configuration as it stands in its file."""
    yield (Cell(name, "bold"),)
    yield from ((Cell(f"  {line}"),) for line in file.text.splitlines())


def start(context: Context, name: str) -> None:
    """Start it, and look after it then. Raises CircusError where one runs already, or it does not start."""
    from vllm_circus.menu.running import look_after_new
    from vllm_circus.menu.saved import start_saved

    look_after_new(context, lambda: start_saved(context, name))


def edit(context: Context, name: str) -> None:
    """Change it in the wizard, from its review on; what is started there is looked after. Raises ConfigError."""
    from vllm_circus.menu.running import look_after_new
    from vllm_circus.menu.wizard.run import edit_saved

    look_after_new(context, lambda: edit_saved(context, name))


def check(context: Context, name: str) -> None:
    """What would run, as `vllm-circus check` shows it. Raises ConfigError with every fault."""
    from vllm_circus.cli.check import checked_plan, plan_lines
    from vllm_circus.menu.files import tell_doubts_of
    from vllm_circus.stores.shelf import configuration_shelf

    tell_doubts_of(context, name)
    plan = checked_plan(context.instance, configuration_shelf(context.instance).path(name))
    context.asker.show(flat(plan_lines(plan, verbose=False, width=context.width)))
    for warning in plan.warnings:
        context.asker.say(f"warning: {warning}")
    context.asker.pause()


def copy(context: Context, name: str) -> None:
    """A new one like it. Raises Back."""
    from vllm_circus.stores.shelf import configuration_shelf

    shelf = configuration_shelf(context.instance, context.asker.say)
    text = shelf.read_text(name)
    new = ask_name(context, shelf, free_name(shelf, name))
    shelf.write_text(new, text)
    context.asker.say(f"The configuration {new!r} is kept.")
