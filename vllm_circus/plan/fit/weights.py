"""A model's files: where they are, and how many bytes of weights they hold.

Rules: the sizes of the files count before what the index says of them, since some indices are wrong; where there are
no files, config.json's sizes do. Nothing is downloaded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from vllm_circus.facts import Disk
from vllm_circus.plan.fit.architecture import Architecture
from vllm_circus.plan.fit.fields import BadModel
from vllm_circus.plan.sources import is_repo_id

_INDEX = "model.safetensors.index.json"
_PART = re.compile(r"-\d{5}-of-\d{5}\.gguf$")
_MOST = 1 << 50


@dataclass(frozen=True)
class Weights:
    """All weights of a model in its files, in bytes; `origin` says how that is known."""

    size: int
    origin: str


def find_model(value: str, folder: Path, environ: Mapping[str, str], disk: Disk, revision: str = "main") -> Path | None:
    """The folder of a model: that of the path, or the snapshot in Hugging Face's cache; None where there is none."""
    path = disk.home() / value[2:] if value.startswith("~/") else folder / value
    if disk.is_folder(path):
        return path
    if disk.exists(path):
        return path.parent
    if not is_repo_id(value):
        return None
    home = hub_folder(environ, disk) / f"models--{value.partition(':')[0].replace('/', '--')}"
    commit = (disk.text(home / "refs" / revision) or revision).strip()
    found = home / "snapshots" / commit
    return found if re.fullmatch(r"[\w.-]+", commit) and disk.is_folder(found) else None


def hub_folder(environ: Mapping[str, str], disk: Disk) -> Path:
    """Hugging Face's cache of models, by the variables that huggingface_hub reads."""
    if hub := environ.get("HF_HUB_CACHE") or environ.get("HUGGINGFACE_HUB_CACHE"):
        return _expanded(hub, disk)
    if home := environ.get("HF_HOME"):
        return _expanded(home, disk) / "hub"
    cache = environ.get("XDG_CACHE_HOME")
    return (_expanded(cache, disk) if cache else disk.home() / ".cache") / "huggingface" / "hub"


def _expanded(value: str, disk: Disk) -> Path:
    """A path of the environment: a service's has no shell that would have put the home folder in."""
    return disk.home() / value[2:] if value.startswith("~/") else Path(value)


def read_config(folder: Path, disk: Disk) -> object:
    """The parsed config.json. Raises BadModel where there is none, or it is no JSON."""
    path = folder / "config.json"
    if disk.mode(path) is None:
        raise BadModel(f"{folder} holds no config.json", hint="name a model's folder as Hugging Face lays it out")
    try:
        return json.loads(disk.text(path) or "")
    except (ValueError, RecursionError) as error:
        raise BadModel(f"{path} is no JSON", hint="is the download whole?") from error


def weigh(folder: Path, value: str, model: Architecture, disk: Disk) -> Weights:
    """The weights of the model in that folder; `value` is how it was named, a file of weights perhaps."""
    if value.endswith(".gguf") and (size := disk.size(folder / Path(value).name)):
        return Weights(size, "the file's size")
    names = [name for name in disk.names(folder) if not name.startswith(("adapter_", "consolidated", "training_"))]
    if (found := _indexed(folder, disk)) is not None:
        return found
    for ending in (".safetensors", ".gguf", ".bin", ".pt"):
        files = [name for name in names if name.endswith(ending)]
        if files and (found := _files(folder, files, disk)).size:
            return found
    return Weights(int(model.parameters * model.stored / 8), "reckoned from config.json")


def _files(folder: Path, names: list[str], disk: Disk) -> Weights:
    """Every file is a part of the model, but of GGUF ones each is a whole of its own: the largest counts."""
    sizes = {name: disk.size(folder / name) or 0 for name in names}
    whole = [size for name, size in sizes.items() if name.endswith(".gguf") and not _PART.search(name)]
    return Weights(max(whole), "the largest file's size") if whole else Weights(sum(sizes.values()), "the files' sizes")


def _indexed(folder: Path, disk: Disk) -> Weights | None:
    """What the index names, where it is one."""
    try:
        index = json.loads(disk.text(folder / _INDEX) or "")
        parts = sorted({str(name) for name in cast("dict[str, object]", index["weight_map"]).values()})
        total = index.get("metadata", {}).get("total_size")
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
        return None
    sizes = [disk.size(folder / part) for part in parts]
    if sizes and all(sizes):
        return Weights(sum(size or 0 for size in sizes), "the files' sizes")
    usable = isinstance(total, int | float) and 0 < total < _MOST
    return Weights(int(total), "the index of its files") if usable else None
