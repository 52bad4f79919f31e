"""What an operator keeps: saved configurations, profiles, shortcuts and settings that cannot be read any more."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from vllm_circus.checkup.findings import Found, ok, warning
from vllm_circus.checkup.scene import Scene
from vllm_circus.errors import ConfigError
from vllm_circus.stores.settings import read_settings
from vllm_circus.stores.shelf import (
    Entry,
    Shelf,
    Unreadable,
    configuration_shelf,
    faults_of,
    profile_shelf,
    shortcut_shelf,
)
from vllm_circus.view.units import counted


def check_kept(scene: Scene) -> Iterator[Found]:
    """Every file of every shelf, by its own schema."""
    instance, kept, broken = scene.instance, [], False
    for shelf, group in (
        (configuration_shelf(instance), "config"),
        (profile_shelf(instance), "profiles"),
        (shortcut_shelf(instance), "shortcuts"),
    ):
        found = list(judge_shelf(shelf, scene.words(group)))
        yield from found
        broken = broken or bool(found)
        kept += [] if found else [counted(len(shelf.names()), shelf.kind)]
    found = list(_settings(scene))
    yield from found
    if not broken and not found:
        yield ok(f"what is kept can be read: {', '.join(kept)}")


def judge_shelf(shelf: Shelf[Any], command: str) -> Iterator[Found]:
    """What is broken there; `command` is the group of commands that looks after it, between backticks."""
    try:
        entries = shelf.entries()
    except Unreadable as error:
        yield warning(str(error), error.hint)
        return
    for entry in entries:
        yield from _broken(shelf, entry, command)


def _broken(shelf: Shelf[Any], entry: Entry[Any], command: str) -> Iterator[Found]:
    if entry.error is None:
        return
    faults = faults_of(entry.error)
    more = f", and {len(faults) - 1} more" if len(faults) > 1 else ""
    edit = f"{command[:-1]} edit {entry.name}` mends it, {command[:-1]} rm {entry.name}` removes it"
    hint = edit if isinstance(entry.error, ConfigError) else entry.error.hint or f"look at {entry.path}"
    yield warning(f"the {shelf.kind} {entry.name} cannot be used: {faults[0]}{more}", hint)


def _settings(scene: Scene) -> Iterator[Found]:
    try:
        read_settings(scene.instance)
    except ConfigError as error:
        path = scene.instance.settings
        for sentence in faults_of(error):
            yield warning(sentence, f"correct {path}, or `rm {path}` for the defaults")
