"""What is known of a model on this disk, and how it is put together from its files.

Rules: nothing that a file says is trusted: every text is harmless for a terminal and short, every number has bounds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

#: A language model, one in a GGUF file, a LoRA adapter, or a model that gives vectors or scores instead of text.
Kind = Literal["model", "gguf", "adapter", "pooling"]


@dataclass(frozen=True)
class File:
    """A file below a model's folder: its path from there, and its bytes; None where a link leads nowhere."""

    name: str
    size: int | None


@dataclass(frozen=True)
class LocalModel:
    """One model on this disk.

    Attributes:
        id: what `model:` of a models file would say: a Hugging Face id, or an absolute path.
        folder: where its files are: in Hugging Face's cache the snapshot.
        size: bytes of all its files that are here; of a GGUF file, of its parts.
        weights: bytes of what an engine would load of them.
        architecture: its class; of a GGUF file its family, of an adapter its method; empty where nobody says.
        context: the longest one that it was made for, in tokens; None where nobody says.
        quantization: how its weights are kept: a type of number or a method; empty where nobody says.
        base: of an adapter the model that it belongs on, as its file says; empty for everything else.
        rank: of an adapter.
        source: Hugging Face's cache, or a folder of the settings.
        complete: all its files are here; `lacks` says what is not, one sentence.
        revision, commit: in the cache; empty elsewhere.
        home: what is taken away with it: in the cache the repository, elsewhere the folder or the first file.
        parts: names of its files of weights, below `folder`.
        targets: the modules that an adapter changes.
        title: what a GGUF file calls itself.
        config: the parsed config.json, or what a GGUF file's header comes to; empty where there is none.
    """

    id: str
    folder: Path
    kind: Kind
    size: int
    architecture: str
    context: int | None
    quantization: str
    base: str
    rank: int | None
    source: Literal["hub", "folder"]
    complete: bool
    revision: str
    commit: str = ""
    weights: int = 0
    lacks: str = ""
    home: Path = Path()
    parts: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    title: str = ""
    config: Mapping[str, object] = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True)
class Survey:
    """All that was found, by id, and what could not be looked at: a sentence each."""

    models: tuple[LocalModel, ...]
    notes: tuple[str, ...] = ()
