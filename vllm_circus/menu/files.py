"""Import from a file or a pasted command, and export into a file: for everything that an operator keeps.

Rules: what is read is told before anything is kept, with all that could not be taken over; a name that is taken is
asked about; what this machine does not have is pointed out and never guessed. Exports are for their owner alone
(0600) and hold no secret.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vllm_circus.menu.ask import Choice
from vllm_circus.menu.kept import Deed, free_name, name_check

if TYPE_CHECKING:
    from vllm_circus.exchange.found import Imported
    from vllm_circus.menu.context import Context
    from vllm_circus.stores.shelf import Shelf

Noun = Literal["profile", "shortcut", "configuration"]
_WHOSE = {
    "profile": "profiles of another machine, or vllm-cli's user_profiles.json",
    "shortcut": "shortcuts of another machine, or vllm-cli's shortcuts.json",
    "configuration": "another machine's export, a models file, or one of vllm-cli's",
}


@dataclass(frozen=True)
class _New:
    """One thing that was read: its kind, its name there, and the text of its file."""

    noun: Noun
    name: str
    text: str


def import_entry(noun: Noun) -> tuple[str, str, Callable[[Context], None]]:
    """What imports a file, for a list of that kind; whatever the file holds is taken over."""
    return "Import a file", _WHOSE[noun], import_file


def paste_entry() -> tuple[str, str, Callable[[Context], None]]:
    """What imports a command line."""
    return "Import a command", "a `vllm serve …` that you have: paste it", import_command


def export_deed(noun: Noun) -> Deed:
    """What exports one of that kind."""
    return Deed("Export", "into a file that another machine imports", lambda context, name: export(context, noun, name))


def import_file(context: Context) -> None:
    """Ask for a file, tell what is in it, and keep it. Raises ConfigError where it cannot be read, and Back."""
    from vllm_circus.config.load import read_bytes
    from vllm_circus.exchange.read import read_foreign

    path = Path(context.asker.path("File to import", check=_readable))
    take_over(context, read_foreign(read_bytes(path), path.name))


def import_command(context: Context) -> None:
    """Ask for a `vllm serve …`, and keep what it says as a configuration. Raises as `import_file` does."""
    from vllm_circus.exchange.command import read_command_line

    take_over(context, read_command_line(context.asker.text("The command, in one line", check=_some)))


def take_over(context: Context, imported: Imported) -> None:
    """Tell what was read, then keep it under names that are free, or as somebody says. Raises CircusError, and Back."""
    from vllm_circus.exchange.tell import tell_import
    from vllm_circus.view.starting import kept_names

    for line in tell_import(imported, kept_names(context.instance.profiles)):
        context.asker.say(line)
    for new in _new(imported):
        _keep(context, new, imported)
    if imported.model_folders and context.asker.confirm("Search its model folders for models from now on?"):
        _add_folders(context, imported.model_folders)
    context.asker.pause()


def export(context: Context, noun: Noun, name: str) -> None:
    """Ask for a file and write one of what is kept into it. Raises CircusError where that cannot be, and Back."""
    from vllm_circus.cli import porting
    from vllm_circus.cli.shelves import put_file

    if noun == "configuration":
        text, told = porting.export_configuration(context.instance, name)
    else:
        text, told = porting.export_entries(context.instance, noun, (name,))
    path = Path(context.asker.path("File to write", default=f"~/{name}.yaml", check=_writable))
    if path.exists() and not context.asker.confirm(f"{path} is there already. Replace it?", default=False):
        return
    put_file(path, text)
    for line in (*told, f"wrote {path}"):
        context.asker.say(line)
    context.asker.pause()


def tell_doubts(context: Context, document: Mapping[str, Any], folder: Path) -> bool:
    """Tell what a configuration names and this machine does not have; returns whether there is anything."""
    from vllm_circus.exchange.doubts import doubts
    from vllm_circus.exchange.tell import tell_doubts as told
    from vllm_circus.facts import gather_facts

    lines = told(doubts(document, gather_facts(), context.disk, folder))
    for line in lines:
        context.asker.say(line)
    return bool(lines)


def tell_doubts_of(context: Context, name: str) -> None:
    """The same of a saved configuration. Raises CircusError where it cannot be read."""
    from vllm_circus.config.document import parse_document
    from vllm_circus.stores.shelf import configuration_shelf

    shelf = configuration_shelf(context.instance)
    document = parse_document(shelf.read(name).text, name).data
    if isinstance(document, dict):
        tell_doubts(context, document, shelf.folder)


def _new(imported: Imported) -> Iterator[_New]:
    """Profiles first: the others name them."""
    from vllm_circus.cli.porting import texts_of

    nouns: tuple[Noun, ...] = ("profile", "shortcut", "configuration")
    for noun in nouns:
        yield from (_New(noun, name, text) for name, text in texts_of(noun, imported).items())


def _keep(context: Context, new: _New, imported: Imported) -> None:
    shelf = _shelf(context, new.noun)
    name, replace = new.name, False
    if shelf.holds(name) and shelf.read_text(name) == new.text:
        context.asker.say(f"The {new.noun} {name!r} is here already, and the same.")
    else:
        if shelf.holds(name) or name_check(shelf)(name):
            name, replace = _settle_name(context, shelf, new)
        if not name:
            return
        path = shelf.write_text(name, new.text, replace=replace)
        context.asker.say(f"The {new.noun} {name!r} is kept in {path}.")
    if new.noun == "configuration" and tell_doubts(context, imported.configurations[new.name], shelf.folder):
        context.asker.say(f"Saved configurations > {name} > Edit corrects that.")


def _settle_name(context: Context, shelf: Shelf[Any], new: _New) -> tuple[str, bool]:
    """Under which name to keep it, empty for none, and whether to replace what is there."""
    free = free_name(shelf, new.name)
    choices = [
        Choice("rename", "Keep both", f"the new one as {free!r}, or another name"),
        Choice("replace", "Replace", "what is there goes"),
        Choice("leave", "Leave it out"),
    ]
    chosen = context.asker.choose(f"There is a {new.noun} {new.name!r} already, another one", choices)
    if chosen == "rename":
        return context.asker.text(f"Name of the new {new.noun}", default=free, check=name_check(shelf)), False
    return (new.name, True) if chosen == "replace" else ("", False)


def _add_folders(context: Context, folders: tuple[str, ...]) -> None:
    from vllm_circus.stores.schema import Settings
    from vllm_circus.stores.settings import change_settings
    from vllm_circus.stores.yamltext import plain

    def add(settings: Settings) -> Settings:
        merged = list(dict.fromkeys((*settings.model_folders, *folders)))
        return Settings.model_validate({**plain(settings), "model_folders": merged})

    change_settings(context.instance, add, context.asker.say)


def _shelf(context: Context, noun: Noun) -> Shelf[Any]:
    from vllm_circus.stores import shelf

    if noun == "profile":
        return shelf.profile_shelf(context.instance, context.asker.say)
    if noun == "shortcut":
        return shelf.shortcut_shelf(context.instance, context.asker.say)
    return shelf.configuration_shelf(context.instance, context.asker.say)


def _some(text: str) -> str:
    return "" if text else "paste a command such as: vllm serve Qwen/Qwen3-8B --max-model-len 8192"


def _readable(text: str) -> str:
    if not text:
        return "name a file"
    try:
        return (
            "" if Path(text).is_file() else f"{text} is a folder" if Path(text).is_dir() else f"there is no file {text}"
        )
    except (OSError, ValueError) as error:
        return f"{text} cannot be read: {error}"


def _writable(text: str) -> str:
    if not Path(text).is_absolute():
        return "write the whole path of a file, from / or ~ on"
    try:
        path = Path(text)
        if path.is_dir():
            return f"{path} is a folder: name a file in it"
        return "" if path.parent.is_dir() else f"there is no folder {path.parent}"
    except (OSError, ValueError) as error:
        return f"{text} cannot be written: {error}"
