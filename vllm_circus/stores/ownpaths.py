"""Relative paths of a models file, made absolute: what has to happen when the file goes into another folder. Pure."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

_STARTS = ("./", "../")


def own_paths(document: dict[str, Any], folder: Path, exists: Callable[[Path], bool]) -> dict[str, Any]:
    """A copy of a document that the schema takes, in which no path begins at the file's own folder.

    What may be a Hugging Face id or a program on the PATH counts as a path only where it looks like one, or where
    `exists` says so.
    """
    result = copy.deepcopy(document)
    for holder, key, always in _places(result):
        value = holder[key]
        if not isinstance(value, str) or value.startswith(("/", "~")) or "://" in value:
            continue
        if always or value in {".", ".."} or value.startswith(_STARTS) or exists(folder / value):
            holder[key] = str((folder / value).absolute())
    return result


def _places(document: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str, bool]]:
    """Everything that may be a path: what holds it, its key, and whether it is one whatever it looks like."""
    proxy = document.get("proxy") or {}
    yield from _of(proxy, ("unix_socket", True))
    yield from _of(proxy.get("keys") or {}, ("file", True))
    yield from _of(proxy.get("tls") or {}, ("certificate", True), ("key", True))
    for section in (document.get("defaults") or {}, *document.get("models", [])):
        yield from _of(section, ("env_file", True), ("model", False))
        yield from _of(section, ("executable", "/" in str(section.get("executable"))))
        for adapter in section.get("lora") or []:
            yield from _of(adapter, ("path", False))
        if isinstance(engine := section.get("engine"), dict):
            yield from _program(engine.get("command") or [])


def _program(command: list[str]) -> Iterator[tuple[Any, Any, bool]]:
    """The first word of an argument vector; one with braces is filled in later."""
    if command and "/" in command[0] and "{" not in command[0]:
        yield command, 0, True


def _of(holder: dict[str, Any], *keys: tuple[str, bool]) -> Iterator[tuple[dict[str, Any], str, bool]]:
    yield from ((holder, key, always) for key, always in keys if holder.get(key) is not None)
