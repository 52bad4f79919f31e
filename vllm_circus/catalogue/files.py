"""A model's files one by one: what they are, and which of them are cut short.

Source of the format of safetensors files: huggingface/safetensors, `README.md`, "Format". Only headers are read.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path

from vllm_circus.catalogue.types import LocalModel
from vllm_circus.facts import Disk

_MOST_HEADER = 16 << 20  # bytes; the largest ones known are below 1 MiB
_DEEPEST = 3


def files_of(model: LocalModel, disk: Disk) -> tuple[tuple[str, int], ...]:
    """Names below its folder, with their bytes; of a GGUF file its parts, and what lies beside them does not count."""
    if model.kind == "gguf":
        return tuple((part, disk.size(model.folder / part) or 0) for part in model.parts)
    return tuple(_below(model.folder, "", _DEEPEST, disk))


def _below(folder: Path, prefix: str, depth: int, disk: Disk) -> Iterator[tuple[str, int]]:
    for entry in disk.entries(folder) or ():
        if not entry.folder:
            yield prefix + entry.name, entry.size or 0
        elif depth and not entry.link and not entry.name.startswith("."):
            yield from _below(folder / entry.name, f"{prefix}{entry.name}/", depth - 1, disk)


def cut_short(model: LocalModel, disk: Disk) -> tuple[str, ...]:
    """A sentence for each file of weights that is not as long as its header says, or has none."""
    paths = (part for part in model.parts if part.endswith(".safetensors"))
    return tuple(fault for part in paths if (fault := _fault(model.folder / part, part, disk)))


def _fault(path: Path, name: str, disk: Disk) -> str:
    size = disk.size(path)
    if size is None:
        return ""  # that it is missing is told already
    wanted = _length_by_header(path, size, disk)
    if wanted is None:
        return f"{name} has no header: it is damaged"
    return f"{name} is damaged: it has {size:,} bytes, and by its header {wanted:,}" if size < wanted else ""


def _length_by_header(path: Path, size: int, disk: Disk) -> int | None:
    """How long the whole file has to be; None where its header cannot be one."""
    begin = disk.head(path, 8) or b""
    if len(begin) < 8:
        return None
    (length,) = struct.unpack("<Q", begin)
    if length > size - 8:
        return None
    if length > _MOST_HEADER:
        return size
    try:
        tensors = json.loads((disk.head(path, 8 + length) or b"")[8:])
        ends = [tensor["data_offsets"][1] for name, tensor in tensors.items() if name != "__metadata__"]
        return 8 + length + max(ends, default=0) if all(isinstance(end, int) for end in ends) else None
    except (ValueError, RecursionError, TypeError, KeyError, IndexError, AttributeError):
        return None
