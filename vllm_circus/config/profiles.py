"""Profiles: named bundles of engine options, built in or the operator's own.

Rule: a built-in profile never turns on anything that runs a model's own code (`trust-remote-code`), and names only
options that current vLLM takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from vllm_circus.config.models import Config, Options, Profile

#: gpt-oss speaks the harmony format, which has a tool parser of its own in vLLM.
_GPT_OSS: Options = {"enable-auto-tool-choice": True, "tool-call-parser": "openai"}

BUILTIN: Mapping[str, Profile] = MappingProxyType(
    {
        "standard": Profile(description="vLLM's own defaults"),
        "moe_optimized": Profile(
            description="mixture-of-experts models: whole experts per GPU instead of a slice of each",
            args={"enable-expert-parallel": True},
        ),
        "high_throughput": Profile(
            description="many requests at once: most of the memory for the cache, large batches",
            args={
                "max-model-len": 8192,
                "gpu-memory-utilization": 0.95,
                "enable-chunked-prefill": True,
                "max-num-batched-tokens": 8192,
                "enable-prefix-caching": True,
            },
        ),
        "low_memory": Profile(
            description="small GPUs: short contexts, weights in 8 bits",
            args={"max-model-len": 4096, "gpu-memory-utilization": 0.7, "quantization": "fp8"},
        ),
        "gpt_oss_ampere": Profile(
            description="gpt-oss on A100 and its generation",
            args={**_GPT_OSS, "attention-backend": "TRITON_ATTN"},
        ),
        "gpt_oss_hopper": Profile(
            description="gpt-oss on H100 and H200",
            args={**_GPT_OSS, "max-num-batched-tokens": 8192, "max-cudagraph-capture-size": 2048},
        ),
        "gpt_oss_blackwell": Profile(
            description="gpt-oss on B200 and its generation: the cache in 8 bits as well",
            args={
                **_GPT_OSS,
                "max-num-batched-tokens": 8192,
                "max-cudagraph-capture-size": 2048,
                "kv-cache-dtype": "fp8",
            },
        ),
    }
)


def all_profiles(config: Config) -> dict[str, Profile]:
    """Every profile that a model of this file may name; the file's own win over built-in ones of the same name."""
    return {**BUILTIN, **config.profiles}
