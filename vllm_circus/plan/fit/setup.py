"""The engine's options, as far as memory depends on them, with vLLM's own values where nothing is written.

Where a value cannot be used, vLLM will say so at its start; here it counts as not written.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_GIB = 1 << 30
#: Bytes of a number in the cache, by `--kv-cache-dtype`. Scales come on top where a whole block has them (nvfp4).
_CACHE = {"float16": 2.0, "bfloat16": 2.0, "half": 2.0, "float32": 4.0, "float": 4.0, "nvfp4": 0.5625}
_SHORT = re.compile(r"(\d+(?:\.\d+)?)([kKmMgG]?)")
#: vLLM's short numbers: 1k is 1,000 and 1K is 1,024.
_SCALES = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "K": 1024, "M": 1024**2, "G": 1024**3}


@dataclass(frozen=True)
class Setup:
    """How an engine is to run.

    Attributes:
        tensor, pipeline: sizes of parallelism.
        context: `max-model-len` in tokens; None for what the model was made for.
        automatic: the context becomes what there is room for.
        number: bytes of a number that it reckons with.
        cache_dtype, cache_number: how numbers are kept in the cache, and their bytes.
        windows: layers with a window keep no more than that (the hybrid cache is on).
        batch, sequences: tokens in one step, and sequences at a time.
        eager: no CUDA graphs.
        quantisation: what the weights are turned into while they are loaded; empty for nothing.
        cache_bytes: a size of the cache that was written down; None where it gets what is left.
    """

    tensor: int = 1
    pipeline: int = 1
    context: int | None = None
    automatic: bool = False
    number: int = 2
    cache_dtype: str = "auto"
    cache_number: float = 2.0
    windows: bool = True
    batch: int = 2048
    sequences: int = 256
    eager: bool = False
    quantisation: str = ""
    cache_bytes: int | None = None

    @property
    def gpus(self) -> int:
        """How many GPUs one copy of the model takes."""
        return self.tensor * self.pipeline


def read_setup(options: Mapping[str, Any], memory: int, gpu: str) -> Setup:
    """The options by canonical name; `memory` in bytes and the name are those of the GPU, which decide defaults."""
    batch, sequences = _usual(memory, gpu)
    context = short_number(options.get("max-model-len"))
    number = 4 if options.get("dtype") in {"float", "float32"} else 2
    dtype = str(options.get("kv-cache-dtype", "auto"))
    return Setup(
        tensor=short_number(options.get("tensor-parallel-size")) or 1,
        pipeline=short_number(options.get("pipeline-parallel-size")) or 1,
        context=context,
        automatic=str(options.get("max-model-len")) in {"auto", "-1"},
        number=number,
        cache_dtype=dtype,
        cache_number=cache_number(dtype, number),
        windows=options.get("disable-hybrid-kv-cache-manager") is not True,
        batch=short_number(options.get("max-num-batched-tokens")) or batch,
        sequences=short_number(options.get("max-num-seqs")) or sequences,
        eager=options.get("enforce-eager") is True,
        quantisation=str(options.get("quantization") or ""),
        cache_bytes=short_number(options.get("kv-cache-memory-bytes")),
    )


def cache_number(dtype: str, number: int = 2) -> float:
    """Bytes of a number in the cache under a `kv-cache-dtype`; `number` is what `auto` means."""
    if dtype.startswith(("fp8", "int8")):
        return 1.0
    if dtype.startswith(("int4", "nvfp4")):
        return _CACHE["nvfp4"]
    return _CACHE.get(dtype, float(number))


def short_number(value: object) -> int | None:
    """A whole number as vLLM takes it: `8192`, `8k`, `1M`; None for everything else, and for what is below 1."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    found = _SHORT.fullmatch(str(value).strip()[:30])
    size = int(float(found[1]) * _SCALES[found[2]]) if found else 0
    return size if 1 <= size <= 1 << 50 else None


def _usual(memory: int, gpu: str) -> tuple[int, int]:
    """vLLM's own `max-num-batched-tokens` and `max-num-seqs` (`EngineArgs.get_batch_defaults`, 0.32)."""
    if memory >= 160 * _GIB:
        return 16_384, 1024
    if memory >= 70 * _GIB and "a100" not in gpu.lower():
        return 8192, 1024
    return 2048, 256
