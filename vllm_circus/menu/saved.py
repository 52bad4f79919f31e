"""Start from saved configuration: what is saved, what this machine lacks for it, and what to do with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from vllm_circus.errors import CircusError
from vllm_circus.menu import files
from vllm_circus.menu.ask import Back, Choice, Heading
from vllm_circus.menu.lines import flat
from vllm_circus.view.table import Cell

if TYPE_CHECKING:
    from vllm_circus.config.models import Config
    from vllm_circus.menu.context import Context
    from vllm_circus.paths import Instance
    from vllm_circus.stores.schema import ModelsFile
    from vllm_circus.stores.shelf import Entry

_Deed = Literal["start", "edit", "export", "delete"]


def open_saved(context: Context) -> None:
    """Choose a saved configuration, then what becomes of it. Raises Back."""
    from vllm_circus.stores.shelf import configuration_shelf

    last = None
    while True:
        entries = configuration_shelf(context.instance).entries()
        if not entries:
            context.asker.say('no configuration is saved; "Configure new proxy" makes one')
            return
        choices: list[Choice[str] | Heading] = [
            Choice(entry.name, entry.name, about(context.instance, entry)) for entry in entries
        ]
        last = context.asker.choose("Saved configurations", choices, default=last)
        try:
            if open_one(context, last):
                return
        except Back:
            continue


def about(instance: Instance, entry: Entry[ModelsFile]) -> str:
    """Its models with their GPUs, or that it is broken."""
    from vllm_circus.stores.library import faults_of_names

    if entry.value is None or faults_of_names(entry.value.loaded, instance):
        return "has faults: choose it to see them"
    return words_of(entry.value.loaded.config)


def words_of(config: Config) -> str:
    """`chat (GPU 0), coder (GPU 1,2); port 8000`."""
    models = [
        f"{model.name} (GPU {','.join(map(str, model.gpus))})" if model.gpus else model.name for model in config.models
    ]
    return f"{', '.join(models)}; port {config.proxy.port}"


def open_one(context: Context, name: str) -> bool:
    """Show it and ask what to do. Returns whether it was started. Raises Back."""
    from vllm_circus.cli.common import running_pid

    wrong = show_one(context, name)
    runs = "a set runs already: stop it first" if running_pid(context.instance) is not None else ""
    choices: list[Choice[_Deed] | Heading] = [
        Choice("start", "Start", "launch the proxy with these models", wrong or runs),
        Choice("edit", "Edit", "change it in the wizard", "" if shelf_reads(context, name) else wrong),
        Choice(
            "export", "Export", "one file that another machine imports", "" if shelf_reads(context, name) else wrong
        ),
        Choice("delete", "Delete"),
    ]
    deed = context.asker.choose(name, choices)
    if deed == "start":
        return start_saved(context, name)
    if deed == "edit":
        from vllm_circus.menu.wizard.run import edit_saved

        edit_saved(context, name)
    elif deed == "export":
        files.export(context, "configuration", name)
    else:
        delete(context, name)
    return False


def delete(context: Context, name: str) -> None:
    """Remove it for good. Raises CircusError where its set runs: that goes on needing the file."""
    from vllm_circus.cli.config import FAMILY

    FAMILY.guard(context.instance, name, True)
    shown = FAMILY.with_lost(context.instance, name)
    if context.asker.confirm(f"Delete the configuration {shown}? Its file is removed.", default=False):
        FAMILY.remove(context.instance, name)
        context.asker.say(f"deleted {name}")


def show_one(context: Context, name: str) -> str:
    """What would run, and every fault and doubt. Returns why it cannot be started; empty where it can."""
    from vllm_circus.cli.check import proxy_words, table_lines
    from vllm_circus.cli.common import build_plan
    from vllm_circus.menu.main import show_error
    from vllm_circus.stores.shelf import configuration_shelf

    if shelf_reads(context, name):
        files.tell_doubts_of(context, name)
    try:
        plan = build_plan(context.instance, configuration_shelf(context.instance).path(name))
    except CircusError as error:
        show_error(context.asker, error)
        return "it has faults: see above"
    context.asker.show([(), *flat((line, True) for line in table_lines(plan, context.width - 1)), ()])
    context.asker.show([(Cell(proxy_words(plan.proxy)),)])
    for warning in plan.warnings:
        context.asker.say(f"warning: {warning}")
    return ""


def shelf_reads(context: Context, name: str) -> bool:
    """Whether it is a models file at all."""
    from vllm_circus.stores.shelf import configuration_shelf

    try:
        configuration_shelf(context.instance).read(name)
    except CircusError:
        return False
    return True


def start_saved(context: Context, name: str) -> bool:
    """Start it; a model that fails can be edited in the wizard."""
    from vllm_circus.cli.down import stop_set
    from vllm_circus.menu.wizard.run import edit_saved
    from vllm_circus.menu.wizard.starting import start
    from vllm_circus.stores.shelf import configuration_shelf

    model = start(context, configuration_shelf(context.instance).path(name))
    if model:
        stop_set(context.instance, tell=context.asker.say)
        edit_saved(context, name)
    return True
