"""The main menu: what runs now, and the way to everything else.

Rules: whatever goes wrong in an entry is shown, and the menu goes on; leaving it stops nothing. `ENTRIES` is the
table of all entries, in their order.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from vllm_circus.errors import CircusError, ConfigError
from vllm_circus.menu.ask import Asker, Back, Choice, Heading
from vllm_circus.menu.context import Context

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vllm_circus.cli.common import Session
    from vllm_circus.paths import Instance
    from vllm_circus.view.outline import Outline

#: Set to anything, it asks for numbered lines instead of lists that move.
PLAIN = "VLLM_CIRCUS_PLAIN"


@dataclass(frozen=True)
class Entry:
    """One entry of a menu: `target` is `module:function`, imported when it is chosen and called with the context."""

    label: str
    hint: str
    target: str

    def run(self, context: Context) -> None:
        """Do it."""
        module, _, name = self.target.partition(":")
        function: Callable[[Context], None] = getattr(import_module(module), name)
        function(context)


_HERE = "vllm_circus.menu"

ENTRIES: tuple[Entry, ...] = (
    Entry("Multi-Model Proxy", "set up, start and watch several models behind one port", f"{_HERE}.proxy:open_proxy"),
    Entry("Models", "what is on this disk: details, fit, download, removal", f"{_HERE}.models:open_models"),
    Entry(
        "Saved configurations", "rename, check, export, import, remove", f"{_HERE}.configurations:open_configurations"
    ),
    Entry("Profiles", "named bundles of engine options", f"{_HERE}.profiles:open_profiles"),
    Entry("Shortcuts", "models with their options, ready to be added", f"{_HERE}.shortcuts:open_shortcuts"),
    Entry("Service", "run under systemd", f"{_HERE}.service:open_service"),
    Entry("Doctor", "what is wrong here, and what to do about it", f"{_HERE}.doctor:open_doctor"),
    Entry("Settings", "model folders, token, prompts, proxy defaults", f"{_HERE}.settings:open_settings"),
)


def open_menu(session: Session) -> None:
    """Show the main menu until somebody leaves it. Raises CircusError where the instance cannot be used."""
    instance = session.instance
    plain = wants_plain(instance, os.environ)
    run_menu(Context(session, instance, make_asker(plain=plain), plain=plain))


def make_asker(*, plain: bool) -> Asker:
    """Lists that move, or numbered lines."""
    if plain:
        from vllm_circus.menu.plain import PlainAsker

        return PlainAsker()
    from vllm_circus.menu.terminal import TerminalAsker

    return TerminalAsker()


def wants_plain(instance: Instance, environ: Mapping[str, str]) -> bool:
    """Whether the terminal, a variable or the settings ask for numbered lines; broken settings ask for nothing."""
    from vllm_circus.stores.settings import read_settings

    if environ.get(PLAIN) or environ.get("TERM", "dumb") == "dumb":
        return True
    try:
        return read_settings(instance).plain
    except CircusError:
        return False


def run_menu(context: Context, entries: Sequence[Entry] = ENTRIES) -> None:
    """The main menu, until somebody leaves it."""
    choices: list[Choice[Entry | None] | Heading] = [Choice(entry, entry.label, entry.hint) for entry in entries]
    choices.append(Choice(None, "Leave", "what runs goes on running"))
    last: Entry | None = entries[0]
    while True:
        try:
            last = context.asker.choose(f"{headline(context.instance)}\nMain menu", choices, default=last)
            if last is None:
                return
            guarded(context, last.run)
        except (Back, KeyboardInterrupt):
            if wants_to_leave(context):
                return


def wants_to_leave(context: Context) -> bool:
    """Ask whether to leave the menu; a second Ctrl-C is a yes."""
    try:
        return context.asker.confirm("Leave the menu? What runs goes on running.", default=True)
    except Back:
        return False
    except KeyboardInterrupt:
        return True


def guarded(context: Context, run: Callable[[Context], None]) -> None:
    """Do something; whatever goes wrong is shown, and Back ends it."""
    try:
        run(context)
    except Back:
        return
    except CircusError as error:
        show_error(context.asker, error)
        context.asker.pause()


def show_error(asker: Asker, error: CircusError) -> None:
    """What is wrong, and what to do."""
    for line in error_lines(error):
        asker.say(line)


def error_lines(error: CircusError) -> Iterable[str]:
    """The sentences of an error, every fault on its own."""
    told = map(str, error.faults) if isinstance(error, ConfigError) else [str(error)]
    yield from (f"error: {sentence}" for sentence in told)
    if error.hint:
        yield f"hint: {error.hint}"


def headline(instance: Instance) -> str:
    """What runs now, in one line."""
    from vllm_circus.cli.common import instance_words, running_pid
    from vllm_circus.view.outline import read_plan_outline

    what = instance_words(instance)
    outline = read_plan_outline(instance)
    if running_pid(instance) is None or outline is None:
        return f"{what}: nothing runs"
    return f"{what}: {_how_many_ready(instance, outline)}, {outline.url}"


def _how_many_ready(instance: Instance, outline: Outline) -> str:
    """How many engines of the running set are ready; takes up to half a second."""
    from vllm_circus.cli.waiting import current_states
    from vllm_circus.view.status import ready_words

    states = current_states(instance, 0.5)
    return ready_words([states.get(model.name) for model in outline.models if model.enabled])
