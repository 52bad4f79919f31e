"""What an import comes to: what was taken over, what was lost, and what should be known.

Rules: a loss is named where it happens, with what can be done about it; what is told of a secret never shows it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vllm_circus.config.places import harmless
from vllm_circus.errors import ConfigError, Fault


@dataclass(frozen=True)
class Loss:
    """Something that could not be taken over.

    Attributes:
        where: where it stood in what was read (`models[1].config_overrides.host`).
        what: one sentence, with what to do where something can be done.
    """

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" if self.where else self.what


@dataclass(frozen=True)
class Imported:
    """What was read, as documents of our own schema.

    Attributes:
        configurations: models files, by name: each is a document that `config.models.Config` takes.
        profiles: documents of `config.models.Profile`, by name.
        shortcuts: documents of `stores.schema.Shortcut`, by name.
        losses: what could not be taken over.
        notes: what became something else here, and what else an operator should know; one sentence each.
        model_folders: folders in which the other program looked for models.
        profiles_elsewhere: profiles that are named, and are neither in what was read nor built in.
        texts: the configurations that were models files of ours already, as they were written: with their comments.
    """

    configurations: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    profiles: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    shortcuts: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    losses: tuple[Loss, ...] = ()
    notes: tuple[str, ...] = ()
    model_folders: tuple[str, ...] = ()
    texts: Mapping[str, str] = field(default_factory=dict)
    profiles_elsewhere: tuple[str, ...] = ()


@dataclass
class Account:
    """What is told while one thing is read."""

    losses: dict[Loss, None] = field(default_factory=dict)
    notes: dict[str, None] = field(default_factory=dict)
    profiles: dict[str, None] = field(default_factory=dict)

    def need_profile(self, name: str) -> None:
        """A profile is named that is not in what is read."""
        self.profiles[harmless(name)] = None

    def lose(self, where: str, what: str) -> None:
        """Something cannot be taken over."""
        self.losses[Loss(harmless(where), harmless(what))] = None

    def note(self, where: str, what: str) -> None:
        """Something is another way here, and nothing is lost by it."""
        self.notes[harmless(f"{where}: {what}" if where else what)] = None


def refuse(source: str, message: str, fix: str = "", *, line: int = 0, where: str = "") -> ConfigError:
    """What is raised where nothing can be read: names the file."""
    return ConfigError((Fault(harmless(source), line, harmless(where), harmless(message), harmless(fix)),))
