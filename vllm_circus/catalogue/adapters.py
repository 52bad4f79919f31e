"""Which adapter belongs on which model.

An adapter names its base as whoever trained it had it: by its id, by a folder of that machine, or by a quantised copy.
Rules: a match says how sure it is; `same` is the model that is named, everything else is told as a guess.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from vllm_circus.catalogue.types import LocalModel
from vllm_circus.paths import expanded

#: `same`: the base is named so; `name`: only the last part of the name is the same; `kin`: it is a copy that was
#: quantised, or trained further, by its name.
Confidence = Literal["same", "name", "kin"]

_RANKS: tuple[Confidence, ...] = ("same", "name", "kin")
_CACHED = re.compile(r"models--([^/]+)/snapshots(?:/|$)")
_COPY = re.compile(r"(?:[-_.](?:unsloth|bnb|awq|gptq|fp8|int[48]|w4a16|w8a8|4bit|8bit|dynamic|quantized|gguf))+$")


@dataclass(frozen=True)
class Match:
    """An adapter and how sure it is that it belongs on the model."""

    adapter: LocalModel
    confidence: Confidence


def adapters_of(model: LocalModel, models: Sequence[LocalModel]) -> tuple[LocalModel, ...]:
    """The adapters that may be served on top of the model, the surest first."""
    return tuple(match.adapter for match in match_adapters(model, models))


def match_adapters(model: LocalModel, models: Sequence[LocalModel]) -> tuple[Match, ...]:
    """The same, with how sure each is."""
    if model.kind not in {"model", "pooling"}:
        return ()
    found = ((each, how_sure(each.base, model)) for each in models if each.kind == "adapter")
    matches = [Match(adapter, confidence) for adapter, confidence in found if confidence]
    return tuple(sorted(matches, key=lambda match: (_RANKS.index(match.confidence), match.adapter.id)))


def bases_of(adapter: LocalModel, models: Sequence[LocalModel]) -> tuple[tuple[LocalModel, Confidence], ...]:
    """The models of this disk that an adapter may belong on, the surest first."""
    found = ((each, how_sure(adapter.base, each)) for each in models if each.kind in {"model", "pooling"})
    known = [(model, confidence) for model, confidence in found if confidence]
    return tuple(sorted(known, key=lambda one: (_RANKS.index(one[1]), one[0].id)))


def how_sure(base: str, model: LocalModel) -> Confidence | None:
    """How sure it is that `base` means the model; None where it does not."""
    if not base:
        return None
    named, own = id_of(base), id_of(model.id)
    if named.lower() == own.lower() or _same_path(base, model.folder):
        return "same"
    last, mine = _last(named), _last(own)
    if last == mine:
        return "name"
    stem, stump = _COPY.sub("", last), _COPY.sub("", mine)
    return "kin" if stem and stem == stump else None


def id_of(value: str) -> str:
    """The id that a path into some machine's cache stands for; everything else as it is."""
    found = _CACHED.search(value)
    return found[1].replace("--", "/") if found else value.rstrip("/")


def _last(value: str) -> str:
    return PurePosixPath(value).name.lower()


def _same_path(base: str, folder: Path) -> bool:
    """Whether a path is the model's own, on this machine; links count as what they lead to."""
    if not base.startswith(("/", "~")):
        return False
    try:
        return expanded(base).resolve() == folder.resolve()
    except (OSError, RuntimeError, ValueError):
        return False
