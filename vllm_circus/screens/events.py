"""What a screen can be told: keys, words of the bus, log lines, the time, and that the set is gone."""

from __future__ import annotations

from dataclasses import dataclass

from vllm_circus.bus.messages import CountsMessage, ModelsMessage
from vllm_circus.view.logs import Entry
from vllm_circus.view.outline import Outline


@dataclass(frozen=True)
class Key:
    """A key was pressed; names: `keys`."""

    name: str


@dataclass(frozen=True)
class Size:
    """The terminal has so many columns and lines."""

    width: int
    height: int


@dataclass(frozen=True)
class Logged:
    """New log lines, in the order of their times."""

    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class Tick:
    """A second has passed; `now` is wall-clock seconds since 1970."""

    now: float


@dataclass(frozen=True)
class Planned:
    """The set as it is planned: at the beginning, and where it was reloaded or started anew.

    `daemon` is circusd's pid, `began` its start in seconds since 1970, None where that is not known.
    """

    outline: Outline
    daemon: int
    began: float | None


@dataclass(frozen=True)
class Gone:
    """The set does not run any more."""


@dataclass(frozen=True)
class Said:
    """A sentence for whoever looks on: what became of a wish."""

    text: str


Event = Key | Size | Logged | Tick | Planned | Gone | Said | ModelsMessage | CountsMessage
