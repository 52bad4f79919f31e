"""Profiles: named bundles of engine options, built in or the operator's own.

Rules: a file's own profiles win over the operator's stored ones, and those over built-in ones. A built-in profile never
turns on anything that runs a model's own code (`trust-remote-code`), and names only options that current vLLM takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from vllm_circus.config.models import Config, Options, Profile
from vllm_circus.config.places import Place
from vllm_circus.errors import Fault
from vllm_circus.files import Content

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


@dataclass(frozen=True)
class StoredProfile:
    """A profile that stands in a file of its own: its value, or what is wrong with it; and what its file held."""

    profile: Profile | None
    source: Path
    lines: Mapping[Place, int] = field(default_factory=dict, repr=False)
    faults: tuple[Fault, ...] = ()
    content: Content | None = None


@dataclass(frozen=True)
class Library:
    """The operator's stored profiles, as far as one models file needs them.

    Attributes:
        names: of all that are stored.
        profiles: those that the file names and does not have itself.
        barred: why none can be read, where that is so.
    """

    names: tuple[str, ...] = ()
    profiles: Mapping[str, StoredProfile] = field(default_factory=dict)
    barred: str = ""


def used_profiles(config: Config) -> frozenset[str]:
    """The names of profiles that the file uses and does not have itself."""
    named = {config.defaults.profile, *(model.profile for model in config.models)}
    return frozenset(name for name in named if name is not None and name not in config.profiles)


def known_profiles(config: Config, library: Library) -> tuple[str, ...]:
    """Every name that a model of this file may use as its profile."""
    return tuple(dict.fromkeys((*BUILTIN, *library.names, *config.profiles)))


def find_profile(name: str, config: Config, library: Library) -> Profile | None:
    """What a name stands for; None where it is unknown or broken."""
    if name in config.profiles:
        return config.profiles[name]
    stored = library.profiles.get(name)
    return stored.profile if stored is not None else BUILTIN.get(name)
