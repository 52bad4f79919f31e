"""What an engine takes of each of its GPUs beside the KV cache.

Estimates, each a little more than less; a log of an earlier load replaces them:
- Activations: vLLM runs one full batch before it gives out the cache. What lives at the widest point of a layer is
  about four hidden states and three times the inner size of its feed-forward part for each token; after the last layer
  come the logits, in two precisions and sorted. For Llama 3 8B with 8,192 tokens and 256 sequences that makes 1.3 GiB,
  and vLLM measured 1.26 (github.com/vllm-project/vllm/pull/10511).
- CUDA graphs: 16 MiB a layer, 0.5 GiB for 32 of them. vLLM tells of 0.36 to 0.73 GiB in logs of models of that size
  (github.com/vllm-project/vllm/pull/39559, github.com/gpustack/runner/pull/251).
- Outside of PyTorch: libraries' workspaces, and buffers to talk over where there are several GPUs: 1.8 GiB more with
  two than with one in the first of these.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from vllm_circus.plan.fit.architecture import Architecture
from vllm_circus.plan.fit.setup import Setup
from vllm_circus.plan.fit.weights import Weights

GIB = 1 << 30
MIB = 1 << 20

_GRAPHS = 16 * MIB
_ALONE = GIB // 4
_AMONG_OTHERS = 2 * GIB
_LOGITS = 12  # bytes: 16 and 32 bits of each, their order and what is left of them
#: What is left of 16-bit weights that are turned into fewer bits while they are loaded.
_TURNED = {"fp8": 0.5, "bitsandbytes": 0.28, "mxfp8": 0.53}


@dataclass(frozen=True)
class Part:
    """Bytes of each GPU, and how they are known."""

    size: int
    origin: str


def weights_part(model: Architecture, weights: Weights, setup: Setup) -> Part:
    """The weights on the fullest GPU, in the form that vLLM loads them in."""
    size = float(weights.size)
    if not model.quantised:
        size *= setup.number * 8 / model.stored
        if (left := _TURNED.get(setup.quantisation)) is not None:
            plain = min(2 * model.vocabulary * model.hidden * setup.number, size / 2)  # embeddings and head stay
            size = plain + (size - plain) * left
    stage = ceil(model.layers / setup.pipeline) / model.layers
    return Part(ceil(size * stage / setup.tensor), weights.origin)


def activations_part(model: Architecture, setup: Setup) -> Part:
    """What one full batch takes while it runs."""
    token = setup.number * (4 * model.hidden + ceil(3 * model.inner / setup.tensor))
    logits = min(setup.sequences, setup.batch) * model.vocabulary * _LOGITS
    return Part(setup.batch * token + logits, "estimated")


def graphs_part(model: Architecture, setup: Setup) -> Part:
    """The captured CUDA graphs, which vLLM counts into its share since 0.21."""
    if setup.eager:
        return Part(0, "none (enforce-eager)")
    return Part(ceil(model.layers / setup.pipeline) * _GRAPHS, "estimated")


def other_part(setup: Setup) -> Part:
    """What is taken outside of PyTorch."""
    return Part(_ALONE if setup.gpus == 1 else _AMONG_OTHERS, "estimated")
