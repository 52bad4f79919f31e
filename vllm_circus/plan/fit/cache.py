"""How much KV cache tokens take.

Rules, as vLLM 0.32 reckons (`v1/kv_cache_interface.py`): memory is given out in blocks of 16 tokens. A layer with a
window keeps the window and what is in flight (two batches, since one is scheduled while another runs), never more than
the sequence has. Heads are shared out over the GPUs of tensor parallelism; where there are fewer heads than GPUs each
GPU keeps one whole, and a latent vector is kept by every GPU. Layers are shared out by pipeline parallelism.
"""

from __future__ import annotations

from math import ceil

from vllm_circus.plan.fit.architecture import Architecture, Layers
from vllm_circus.plan.fit.setup import Setup

BLOCK = 16
_BATCHES_IN_FLIGHT = 2


def token_bytes(model: Architecture, setup: Setup) -> int:
    """What one more token takes on one GPU while no window is full."""
    return round(sum(layers.count * _layer(layers, setup) for layers in model.cache) * _stage(model, setup))


def sequence_bytes(model: Architecture, setup: Setup, tokens: int) -> int:
    """What a sequence of so many tokens takes on one GPU."""
    total = sum(layers.count * _layer(layers, setup) * _kept(layers, setup, tokens) for layers in model.cache)
    return ceil(total * _stage(model, setup))


def longest_sequence(model: Architecture, setup: Setup, room: int, most: int) -> int:
    """The longest sequence, up to `most` tokens, for which there is room on each GPU (bytes); 0 for none."""
    if room < 0:
        return 0
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if sequence_bytes(model, setup, middle) <= room else (low, middle - 1)
    return low


def _layer(layers: Layers, setup: Setup) -> float:
    """Bytes of a token in one layer on one GPU."""
    return layers.numbers(setup.tensor) * setup.cache_number


def _kept(layers: Layers, setup: Setup, tokens: int) -> int:
    """Tokens that a layer keeps, in whole blocks."""
    if layers.window is None or not setup.windows:
        return ceil(tokens / BLOCK) * BLOCK
    kept = layers.window - 1 + _BATCHES_IN_FLIGHT * setup.batch
    if tokens <= kept:
        return ceil(tokens / BLOCK) * BLOCK
    return (ceil(kept / BLOCK) + 1) * BLOCK  # a window may begin within a block


def _stage(model: Architecture, setup: Setup) -> float:
    """The part of the layers that the fullest GPU of a pipeline has."""
    return ceil(model.layers / setup.pipeline) / model.layers
