"""Who uses a model of this disk: what is saved, the set that runs, and processes of whoever started them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from vllm_circus.catalogue.adapters import id_of
from vllm_circus.catalogue.types import LocalModel
from vllm_circus.config.load import load_config
from vllm_circus.config.models import Model, ModelOptions
from vllm_circus.errors import CircusError
from vllm_circus.logline import clean
from vllm_circus.paths import Instance, expanded
from vllm_circus.stores.schema import Shortcut
from vllm_circus.stores.shelf import configuration_shelf, shortcut_shelf


@dataclass(frozen=True)
class Use:
    """One user of a model, by its name."""

    kind: Literal["set", "process", "configuration", "shortcut"]
    name: str

    def __str__(self) -> str:
        return {
            "set": f"the running set serves it as {self.name}",
            "process": f"process {self.name} uses it",
            "configuration": f"{self.name} names it",
            "shortcut": f"shortcut {self.name} names it",
        }[self.kind]


def saved_uses(model: LocalModel, instance: Instance) -> tuple[Use, ...]:
    """Saved configurations, the instance's own models file, and shortcuts that name the model."""
    return tuple(_saved(model, instance))


def _saved(model: LocalModel, instance: Instance) -> Iterator[Use]:
    with suppress(CircusError):
        for entry in configuration_shelf(instance).entries():
            if entry.value is not None:
                named = _names(entry.value.loaded.config.models, entry.value.loaded.folder, model)
            else:
                named = _in_text(entry.path, model)
            if named:
                yield Use("configuration", f"saved configuration {entry.name}")
    with suppress(CircusError):
        for short in shortcut_shelf(instance).entries():
            if _names([short.value], short.path.parent, model) if short.value else _in_text(short.path, model):
                yield Use("shortcut", short.name)
    path = instance.config_file
    try:
        own = path.is_file() and _names(load_config(path).config.models, path.parent, model)
    except CircusError:
        own = _in_text(path, model)
    if own:
        yield Use("configuration", f"models file {path}")


def _names(entries: Sequence[Model | Shortcut | ModelOptions], folder: Path, model: LocalModel) -> bool:
    """Whether one of these entries names the model, as itself or as an adapter."""
    values = [
        value
        for entry in entries
        if isinstance(entry, Model | Shortcut)
        for value in (entry.model, *(adapter.path for adapter in entry.lora))
    ]
    return any(means(value, folder, model) for value in values)


def _in_text(path: Path, model: LocalModel) -> bool:
    """Whether a file that is broken speaks of the model."""
    try:
        return path.is_file() and model.id in path.read_text("utf-8", "replace")
    except OSError:
        return False


def served_uses(model: LocalModel, served: Mapping[str, Sequence[str]]) -> tuple[Use, ...]:
    """Models of a set, each with the values of its plan: what it loads, and its adapters."""
    return tuple(
        Use("set", name) for name, values in served.items() if any(means(each, Path("/"), model) for each in values)
    )


def means(value: str, folder: Path, model: LocalModel) -> bool:
    """Whether a value of a models file, whose relative paths begin in `folder`, is the model."""
    if model.source == "hub":
        named, own = id_of(value).lower(), model.id.lower()
        if named == own or (model.kind != "gguf" and named.partition(":")[0] == own) or _whole(named, own):
            return True
    try:
        path = (folder / expanded(value)).resolve()
        home = (model.home if model.source == "folder" else model.folder).resolve()
    except (OSError, RuntimeError, ValueError):
        return False
    return path == home or home in path.parents


def _whole(named: str, own: str) -> bool:
    """A repository named without a kind may mean each of its GGUF files."""
    return ":" in own and named == own.partition(":")[0]


def process_uses(model: LocalModel) -> tuple[Use, ...]:
    """Processes that were started with the model's name or path, or have a file of it open; not ourselves.

    Of other users' processes only root sees the open files.
    """
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    return tuple(
        Use("process", f"{process.pid} ({clean(_program(process))})")
        for process in psutil.process_iter()
        if process.pid not in own and _uses(process, model)
    )


def _program(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.Error:
        return "gone"


def _uses(process: psutil.Process, model: LocalModel) -> bool:
    try:
        words = [
            word.partition("=")[2] if word.startswith("--") and "=" in word else word for word in process.cmdline()
        ]
        if any(("/" in word or word == model.id) and means(word, Path("/nowhere"), model) for word in words):
            return True
        home = str(model.home)
        return any(file.path == home or file.path.startswith(f"{home}/") for file in process.open_files())
    except (psutil.Error, OSError):
        return False
