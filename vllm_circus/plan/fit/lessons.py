"""What earlier loads of a model told in its log: better than any estimate.

vLLM's lines (0.32): `non-default args: {…}` begins a start, then each worker says `Model loading took N GiB memory and
…`, then `Available KV cache memory: N GiB`, and the engine `GPU KV cache size: N tokens, Maximum concurrency for N
tokens per request: N.NNx`. Of several starts the last one that came so far counts; of several workers the fullest.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

_GIB = 1 << 30
_START = "non-default args:"
_WEIGHTS = re.compile(r"Model loading took (\d+(?:\.\d+)?) ?GiB")
_CACHE = re.compile(r"Available KV cache memory: (-?\d+(?:\.\d+)?) ?GiB")
_TOKENS = re.compile(r"GPU KV cache size: ([\d,]+) tokens")
_OPTION = re.compile(r"'([a-z_]+)': ('[^']*'|[^,{}\[\]()']+)")
#: Options that decide what the figures mean: a lesson holds only where they are the same.
_DECIDING = ("model", "tensor_parallel_size", "pipeline_parallel_size", "quantization", "dtype")
_COSTS = ("enforce_eager", "max_num_batched_tokens", "max_num_seqs", "enable_lora")
_SHARE = 0.92  # vLLM's own


@dataclass(frozen=True)
class Lesson:
    """One load, bytes on the fullest GPU; None where it did not say.

    Attributes:
        options: those that were not vLLM's own values, as it spelled them.
        cache, tokens: room for the cache, and the tokens that went into it.
    """

    options: dict[str, str] = field(default_factory=dict)
    weights: int | None = None
    cache: int | None = None
    tokens: int | None = None

    @property
    def share(self) -> float:
        """The part of the GPU that it was allowed."""
        try:
            return float(self.options.get("gpu_memory_utilization", _SHARE))
        except ValueError:
            return _SHARE

    def same(self, options: dict[str, str]) -> bool:
        """Whether its weights are those of an engine with these options."""
        return all(self.options.get(name) == options.get(name) for name in _DECIDING)

    def same_costs(self, options: dict[str, str]) -> bool:
        """Whether what it took beside weights and cache is, too."""
        return self.same(options) and all(self.options.get(name) == options.get(name) for name in _COSTS)

    def overhead(self, memory: int) -> int | None:
        """What it took beside weights and cache, on a GPU of so many bytes; None where that cannot be told."""
        if self.weights is None or self.cache is None or "kv_cache_memory_bytes" in self.options:
            return None
        left = int(memory * self.share) - self.weights - self.cache
        return left if 0 < left < memory // 2 else None


def learn(lines: Iterable[str]) -> Lesson | None:
    """The last load that told how much its weights took, from the lines of a model's log, oldest first."""
    lesson, now = None, Lesson()
    for line in lines:
        if _START in line:
            now = Lesson(_options(line.partition(_START)[2][:20_000]))
        elif found := _WEIGHTS.search(line):
            now = replace(now, weights=max(now.weights or 0, _bytes(found[1])))
            lesson = now
        elif found := _CACHE.search(line):
            now = replace(now, cache=min(now.cache if now.cache is not None else _bytes(found[1]), _bytes(found[1])))
        elif found := _TOKENS.search(line):
            now = replace(now, tokens=int(found[1].replace(",", "")[:15] or 0))
        if now.weights is not None:
            lesson = now
    return lesson


def as_logged(options: dict[str, object], model: str) -> dict[str, str]:
    """Options by their canonical names, spelled as vLLM logs them."""
    spelled = {name.replace("-", "_"): str(value) for name, value in options.items()}
    for name in ("tensor_parallel_size", "pipeline_parallel_size"):
        if spelled.get(name) == "1":
            del spelled[name]  # vLLM's own value is not logged
    return spelled | {"model": model}


def _options(text: str) -> dict[str, str]:
    return {name: value.strip().strip("'") for name, value in _OPTION.findall(text)}


def _bytes(gib: str) -> int:
    return int(float(gib[:20]) * _GIB)
