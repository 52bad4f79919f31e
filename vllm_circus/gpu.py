"""The GPUs of this machine, through NVML."""

from __future__ import annotations

from dataclasses import dataclass

from vllm_circus.errors import CircusError


class NoDriver(CircusError):
    """NVML cannot be used: no driver, or a driver and library that do not fit together."""


@dataclass(frozen=True)
class Gpu:
    """One GPU as NVML shows it. Memory in bytes, utilisation in percent, temperature in degrees Celsius.

    None where the card does not tell (MIG slices have no utilisation, some cards no temperature).
    """

    index: int
    uuid: str
    name: str
    memory_total: int
    memory_used: int
    utilisation: int | None
    temperature: int | None


def list_gpus() -> tuple[Gpu, ...]:
    """Every GPU, in the order of nvidia-smi. Raises NoDriver."""
    raise NoDriver("not yet")
