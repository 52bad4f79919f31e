"""The systemd units: how they stand, shown, put in place and taken away; the same as `vllm-circus service`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from vllm_circus.menu.ask import Choice, Heading
from vllm_circus.menu.trying import attempt
from vllm_circus.view.table import Cell

if TYPE_CHECKING:
    from vllm_circus.menu.context import Context
    from vllm_circus.render.service import Manager

Deed = Literal["show", "install", "uninstall"]


def open_service(context: Context) -> None:
    """Ask for whom, then what, until somebody goes back."""
    user: bool | None = None
    choices: list[Choice[bool | None] | Heading] = [
        Choice(False, "Of the machine", "starts with it; installing needs root"),
        Choice(True, "Of this user", "needs no root; starts at login, or with the machine where lingering is on"),
        Choice(None, "Back"),
    ]
    while True:
        user = context.asker.choose("Run as a service of systemd", choices, default=user)
        if user is None:
            return
        attempt(context, open_manager, manager_of(context, user=user))


def manager_of(context: Context, *, user: bool) -> Manager:
    """The machine's manager, or this user's."""
    from vllm_circus.render.service import find_manager

    return find_manager(context.environ, user=user)


def open_manager(context: Context, manager: Manager) -> None:
    """How the units of one manager stand, and what can be done about them."""
    from vllm_circus.files import file_errors

    last: Deed | None = None
    while True:
        with file_errors():
            _say_states(context, manager)
        whose = "this user" if manager.user else "the machine"
        last = context.asker.choose(f"The service of {whose}", list(_choices(manager)), default=last)
        if last is None:
            return
        attempt(context, _do, manager, last)


def _choices(manager: Manager) -> list[Choice[Deed | None]]:
    return [
        Choice("show", "Show", "the units as they are written"),
        Choice("install", "Install", f"write them into {manager.units}, and make systemd read them"),
        Choice("uninstall", "Uninstall", "stop the services, and remove the units"),
        Choice(None, "Back"),
    ]


def _say_states(context: Context, manager: Manager) -> None:
    from vllm_circus.cli.service import unit_states

    for what, state in unit_states(manager):
        context.asker.say(f"{what}: {state}")


def _do(context: Context, manager: Manager, deed: Deed) -> None:
    from vllm_circus.cli import service

    if deed == "show":
        from vllm_circus.render.service import rendered_units

        for path, content in rendered_units(manager):
            context.asker.show([(Cell(f"# {path}", "bold"),), *((Cell(line),) for line in content.splitlines())])
    elif deed == "install":
        if not context.asker.confirm(f"Write the units into {manager.units}?"):
            return
        service.install_units(manager)
    elif not context.asker.confirm("Stop the services, and remove their units?", default=False):
        return
    else:
        service.uninstall_units(manager)
    context.asker.pause()
