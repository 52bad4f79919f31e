"""What a setup becomes on disk: a saved configuration, or a models file for this once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from vllm_circus.menu.wizard.checks import short
from vllm_circus.menu.wizard.setup import Setup
from vllm_circus.menu.wizard.written import edited, text_of

if TYPE_CHECKING:
    from pathlib import Path

    from vllm_circus.menu.context import Context
    from vllm_circus.stores.schema import ModelsFile
    from vllm_circus.stores.shelf import Shelf


def save(setup: Setup, context: Context) -> Setup:
    """Ask for a name, and keep it there. Raises Back, and CircusError where it cannot be written."""
    from vllm_circus.stores.shelf import configuration_shelf

    shelf = configuration_shelf(context.instance, context.asker.say)
    name, replaces = _ask_name(setup, context, shelf)
    text = text_of(setup)
    path = (
        _put(setup, name, text, shelf, context)
        if name == setup.name
        else shelf.write_text(name, text, replace=replaces)
    )
    if setup.text and not edited(setup):
        context.asker.say("it is written anew: it was laid out so that its comments could not be kept")
    context.asker.say(f"saved as {name} ({path})")
    return replace(setup, name=name, text=text)


def _put(setup: Setup, name: str, text: str, shelf: Shelf[ModelsFile], context: Context) -> Path:
    """In the place of what it was made from; what somebody else made of that meanwhile is asked about. Raises Back."""
    from vllm_circus.menu.ask import Back
    from vllm_circus.stores.locking import ChangedMeanwhile

    try:
        return shelf.write_text(name, text, instead_of=setup.text)
    except ChangedMeanwhile as error:
        if not context.asker.confirm(f"{error}.\nReplace what stands there now?", default=False):
            raise Back from None
        return shelf.write_text(name, text, replace=True)


def write_once(setup: Setup, context: Context) -> Path:
    """A models file in the state folder, for its owner alone; the next one takes its place."""
    from vllm_circus.files import file_errors, private_directory, write_atomic

    with file_errors():
        path = private_directory(context.instance.state_dir) / "unsaved.yaml"
        write_atomic(path, text_of(setup), mode=0o600)
    return path


def _ask_name(setup: Setup, context: Context, shelf: Shelf[ModelsFile]) -> tuple[str, bool]:
    """A name, and whether what has it is to be replaced; Back from that question asks for another one."""
    from vllm_circus.menu.ask import Back

    name = setup.name
    while True:
        name = context.asker.text("Name of the configuration", default=name, check=_check_of(shelf))
        if name == setup.name or not shelf.holds(name):
            return name, False
        try:
            if context.asker.confirm(f"There is a configuration {name} already. Replace it?", default=False):
                return name, True
        except Back:
            continue


def _check_of(shelf: Shelf[ModelsFile]) -> Callable[[str], str]:
    from vllm_circus.errors import CircusError

    def check(text: str) -> str:
        try:
            shelf.path(text)
        except CircusError as error:
            return f"{short(text)} cannot be used: {error.hint}" if text else "write a name, such as chat-and-coder"
        return ""

    return check
