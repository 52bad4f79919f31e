"""Models as small folders: the right names, headers and sizes, and nothing in the weights (the files are sparse)."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.plan.fit.samples import config

GIB = 1 << 30


def safetensors(path: Path, size: int) -> Path:
    """A file of weights of that size with a header that holds one tensor; it takes no room."""
    header = json.dumps({"weight": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}}).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(max(size, file.tell()))
    return path


def model_folder(
    folder: Path, sample: str = "llama-3-8b", shards: int = 1, size: int = 16 * GIB, **changes: Any
) -> Path:
    """A model by one of the samples of `fit`; fields of its config.json may be changed."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config(sample, **changes)))
    (folder / "tokenizer.json").write_text("{}")
    names = (
        ["model.safetensors"]
        if shards == 1
        else [f"model-{n:05}-of-{shards:05}.safetensors" for n in range(1, shards + 1)]
    )
    for name in names:
        safetensors(folder / name, size // shards)
    if shards > 1:
        index = {"metadata": {"total_size": size}, "weight_map": {f"layer.{n}": name for n, name in enumerate(names)}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def adapter_folder(folder: Path, base: str, rank: int = 16, **changes: Any) -> Path:
    """A LoRA adapter."""
    folder.mkdir(parents=True, exist_ok=True)
    told = {"peft_type": "LORA", "base_model_name_or_path": base, "r": rank, "target_modules": ["q_proj", "v_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(told | changes))
    safetensors(folder / "adapter_model.safetensors", 1 << 20)
    return folder


def text(value: str) -> bytes:
    """A text of a GGUF header."""
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def gguf_header(values: Mapping[str, object], version: int = 3, tensors: int = 1) -> bytes:
    """The header of a GGUF file: whole numbers become uint32, lists arrays of texts."""
    data = b"GGUF" + struct.pack("<IQQ", version, tensors, len(values))
    for key, value in values.items():
        data += text(key)
        if isinstance(value, str):
            data += struct.pack("<I", 8) + text(value)
        elif isinstance(value, float):
            data += struct.pack("<If", 6, value)
        elif isinstance(value, list):
            data += struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(text, value))
        else:
            assert isinstance(value, int)
            data += struct.pack("<II", 4, value)
    return data


LLAMA: Mapping[str, object] = {
    "general.architecture": "llama",
    "general.name": "Tiny Llama",
    "llama.context_length": 8192,
    "llama.block_count": 32,
    "llama.embedding_length": 4096,
    "llama.attention.head_count": 32,
    "llama.attention.head_count_kv": 8,
    "llama.feed_forward_length": 14336,
    "tokenizer.ggml.tokens": ["a", "b", "c"],
    "general.file_type": 15,
}


def gguf_file(path: Path, size: int = 5 * GIB, values: Mapping[str, object] = LLAMA) -> Path:
    """A GGUF file of that size."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(gguf_header(values))
        file.truncate(max(size, file.tell()))
    return path


def in_cache(hub: Path, repository: str, source: Path, commit: str = "1" * 40, ref: str = "main") -> Path:
    """A folder put into Hugging Face's cache as its library does it: blobs, and a snapshot of links. Its repository."""
    home = hub / f"models--{repository.replace('/', '--')}"
    snapshot = home / "snapshots" / commit
    for folder in (home / "blobs", home / "refs", snapshot):
        folder.mkdir(parents=True, exist_ok=True)
    if ref:
        (home / "refs" / ref).write_text(commit)
    for path in sorted(path for path in source.rglob("*") if path.is_file()):
        name = path.relative_to(source)
        blob = home / "blobs" / f"{abs(hash((str(name), path.stat().st_size))):040x}"
        if not blob.exists():
            path.rename(blob)
        target = snapshot / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(os.path.relpath(blob, target.parent))
    return home


def names_in(models: Sequence[Any]) -> list[str]:
    """The ids of models."""
    return [model.id for model in models]
