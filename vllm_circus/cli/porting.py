"""Import and export of what is kept: from a file of ours or of another program, and to one file for another machine.

The menu uses these functions as the commands do. Rules: nothing is written unless everything can be; what could not be
taken over is told, each thing; what is not on this machine is pointed out and taken all the same.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vllm_circus.cli.common import say
from vllm_circus.errors import CircusError, ConfigError

if TYPE_CHECKING:
    from vllm_circus.exchange.found import Imported
    from vllm_circus.paths import Instance
    from vllm_circus.stores.shelf import Shelf

Kind = Literal["configuration", "profile", "shortcut"]
COMMANDS: Mapping[Kind, str] = {"configuration": "config", "profile": "profiles", "shortcut": "shortcuts"}


class NothingInIt(CircusError):
    """The file holds nothing of the kind that is asked for."""

    exit_code = 2


@dataclass(frozen=True)
class Intake:
    """What an import would write: texts of files, by name, and sentences about what was taken over and what not."""

    kind: Kind
    shelf: Shelf[Any]
    texts: Mapping[str, str]
    told: tuple[str, ...]


def read_file(file: str) -> tuple[bytes, str]:
    """The bytes of a file, `-` for stdin, and what it is called in messages.

    Raises ConfigError, also where it is a pipe or a device: those may never begin, or never end.
    """
    from vllm_circus.config.load import MAX_FILE_BYTES, read_bytes
    from vllm_circus.config.places import make_fault

    if file == "-":
        return sys.stdin.buffer.read(MAX_FILE_BYTES + 1), "stdin"  # what is more is refused, and need not end
    if Path(file).exists() and not Path(file).is_file():
        raise ConfigError((make_fault(file, 0, (), "is no regular file", "name a file, or `-` for stdin"),))
    return read_bytes(Path(file)), file


def take_in(
    instance: Instance, kind: Kind, imported: Imported, *, name: str | None = None, replace: bool = False
) -> Intake:
    """What of an import is of that kind, checked; nothing is written yet. `name` is for a single one.

    Raises:
        NothingInIt: none is of that kind, or there are several and one name.
        EntryExists: a name is taken, and not `replace`.
        ConfigError: a result is not valid.
    """
    from vllm_circus.exchange.tell import tell_import
    from vllm_circus.stores.shelf import EntryExists
    from vllm_circus.view.starting import kept_names

    found = texts_of(kind, imported)
    if not found:
        raise NothingInIt(f"there is no {kind} in it", hint=_what_else(imported))
    if name is not None:
        if len(found) > 1:
            raise NothingInIt(f"there are {len(found)} in it: {', '.join(found)}", hint="leave --name away")
        found = {name: next(iter(found.values()))}
    shelf = _shelf(instance, kind)
    for each, text in found.items():
        shelf.parse(text.encode(), shelf.path(each))
    taken = [each for each in found if shelf.holds(each)]
    if taken and not replace:
        hint = "--replace puts the new in its place; --name gives a single one another name"
        raise EntryExists(f"there is a {kind} {', '.join(taken)} already", hint=hint)
    told = tell_import(imported, kept_names(instance.profiles))
    return Intake(kind, shelf, found, (*told, *_lacking(kind, imported, shelf.folder)))


def _what_else(imported: Imported) -> str:
    """What is in a file that lacks what was asked for, and what takes that; empty where nothing is."""
    other = [COMMANDS[each] for each in COMMANDS if texts_of(each, imported)]
    if other:
        return f"it holds others: `vllm-circus {other[0]} import` takes them"
    added = (f"`vllm-circus models folders add {shlex.quote(folder)}`" for folder in imported.model_folders)
    return f"it names folders of models: {', '.join(added)}" if imported.model_folders else ""


def put_away(intake: Intake, *, replace: bool) -> None:
    """Write what was taken in. Raises CircusError."""
    for name, text in intake.texts.items():
        say(f"wrote {intake.shelf.write_text(name, text, replace=replace)}")


def texts_of(kind: Kind, imported: Imported) -> dict[str, str]:
    """The files that the import's things of that kind make."""
    from vllm_circus.stores.writing import dump_models_file
    from vllm_circus.stores.yamltext import dump_block

    if kind == "configuration":
        documents = imported.configurations.items()
        return {name: imported.texts.get(name) or dump_models_file(document) for name, document in documents}
    found = imported.profiles if kind == "profile" else imported.shortcuts
    return {name: dump_block(document) for name, document in found.items()}


def _lacking(kind: Kind, imported: Imported, folder: Path) -> tuple[str, ...]:
    """What of the configurations is not on this machine."""
    if kind != "configuration":
        return ()
    from vllm_circus.exchange.doubts import doubts
    from vllm_circus.exchange.tell import tell_doubts
    from vllm_circus.facts import Disk, gather_facts

    facts = gather_facts()
    return tell_doubts(
        doubt for document in imported.configurations.values() for doubt in doubts(document, facts, Disk(), folder)
    )


def _shelf(instance: Instance, kind: Kind) -> Shelf[Any]:
    from vllm_circus.stores import shelf as shelves

    if kind == "configuration":
        return shelves.configuration_shelf(instance, say)
    return shelves.profile_shelf(instance, say) if kind == "profile" else shelves.shortcut_shelf(instance, say)


# -- export ------------------------------------------------------------------------------------------------------------


def export_configuration(instance: Instance, name: str) -> tuple[str, tuple[str, ...]]:
    """A saved configuration as one file, with the stored profiles that it uses; and sentences about what is not in it.

    Raises UnknownEntry, and ConfigError where it or one of the profiles is broken.
    """
    from vllm_circus.config.profiles import used_profiles
    from vllm_circus.exchange.export import export_configuration as export
    from vllm_circus.stores.shelf import configuration_shelf, profile_shelf

    saved, shelf = configuration_shelf(instance).read(name), profile_shelf(instance)
    used = {each: shelf.read(each) for each in used_profiles(saved.loaded.config) if shelf.holds(each)}
    exported = export(name, saved.text, used)
    return exported.text, (*exported.notes, *(f"left out: {loss}" for loss in exported.losses))


def export_entries(instance: Instance, kind: Kind, names: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """Profiles or shortcuts as one file. Raises UnknownEntry and ConfigError."""
    from vllm_circus.exchange.export import export_entries as export

    shelf = _shelf(instance, kind)
    values = {name: shelf.read(name) for name in names}
    exported = export(values, {}) if kind == "profile" else export({}, values)
    return exported.text, (*exported.notes, *(f"left out: {loss}" for loss in exported.losses))
