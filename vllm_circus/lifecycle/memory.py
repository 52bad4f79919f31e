"""What the keeper of the models writes down, so that its successor goes on where it was.

Lives belong to one circusd: a new set starts afresh. How long a model took to load is worth knowing for longer.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

from vllm_circus.lifecycle.life import Life
from vllm_circus.lifecycle.rounds import Round
from vllm_circus.plan.types import ModelPlan

if TYPE_CHECKING:
    from pydantic import TypeAdapter

VERSION = 2


@dataclass(frozen=True)
class Memory:
    """One keeper's knowledge.

    Attributes:
        owner: which circusd the lives belong to (boot, pid and start time: unique for ever).
        sequence: of the last message published.
        lives: by model.
        loads, wakes: the durations of the last loads, and of the last times that it woke up, in seconds, by model.
        rounds: the restarts of replicas that go on, by group.
        leaving: plans of models that are not in the models file any more, until nothing is left of them.
        started: plans that processes were started with, of models that are planned otherwise by now.
    """

    owner: str = ""
    sequence: int = 0
    lives: dict[str, Life] = field(default_factory=dict)
    loads: dict[str, tuple[float, ...]] = field(default_factory=dict)
    wakes: dict[str, tuple[float, ...]] = field(default_factory=dict)
    rounds: dict[str, Round] = field(default_factory=dict)
    leaving: dict[str, ModelPlan] = field(default_factory=dict)
    started: dict[str, ModelPlan] = field(default_factory=dict)
    version: int = VERSION


def dump_memory(memory: Memory) -> bytes:
    """The memory as JSON."""
    return _adapter().dump_json(memory)


def load_memory(data: bytes) -> Memory:
    """The memory read back. Raises ValueError on anything that `dump_memory` of this version did not write."""
    memory = _adapter().validate_json(data)
    if memory.version != VERSION:
        raise ValueError(f"state of version {memory.version}, this program reads {VERSION}")
    return memory


@cache
def _adapter() -> TypeAdapter[Memory]:
    from pydantic import TypeAdapter

    return TypeAdapter(Memory)
