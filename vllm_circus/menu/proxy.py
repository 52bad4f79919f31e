"""The menu behind "Multi-Model Proxy": what was saved, a new set, or the set that runs."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

from vllm_circus.menu.ask import Choice, Heading
from vllm_circus.menu.main import guarded, headline

if TYPE_CHECKING:
    from vllm_circus.menu.context import Context

_Way = Literal["running", "saved", "new", "back"]


def open_proxy(context: Context) -> None:
    """Look after the set that runs, start from what is saved, or set up a new proxy. Raises Back.

    What was started here is looked after at once, and the main menu follows that.
    """
    from vllm_circus.menu.running import choose_instance, look_after_new, open_running

    last: _Way = "running"
    while True:
        last = context.asker.choose(f"{headline(context.instance)}\nMulti-Model Proxy", _ways(context), default=last)
        if last == "back":
            return
        if last == "running":
            open_running(context, choose_instance(context))
            return
        do = _saved if last == "saved" else _new
        if look_after_new(context, partial(guarded, context, do)):
            return


def _ways(context: Context) -> list[Choice[_Way] | Heading]:
    from vllm_circus.menu.running import running_instances
    from vllm_circus.stores.shelf import configuration_shelf

    running = running_instances(context)
    saved = configuration_shelf(context.instance).names()
    none = "" if saved else 'none is saved yet: "Configure new proxy" makes one'
    names = ", ".join(instance.name for instance in running)
    choices: list[Choice[_Way] | Heading] = []
    if running:
        choices.append(Choice("running", "Manage the running proxy", f"monitors, models, reload, stop: {names}"))
    return [
        *choices,
        Choice("saved", "Start from saved configuration", f"quick start; {len(saved)} saved", none),
        Choice("new", "Configure new proxy", "create a new proxy setup, step by step"),
        Choice("back", "Back"),
    ]


def _saved(context: Context) -> None:
    from vllm_circus.menu.saved import open_saved

    open_saved(context)


def _new(context: Context) -> None:
    from vllm_circus.menu.wizard.run import configure_new

    configure_new(context)
