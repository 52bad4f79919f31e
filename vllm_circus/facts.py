"""What the machine is like now, gathered once so that planning can stay pure."""

from __future__ import annotations

from dataclasses import dataclass

from vllm_circus.gpu import Gpu


@dataclass(frozen=True)
class Facts:
    """What a plan depends on beside the models file.

    Attributes:
        gpus: every GPU; None where there is no driver (indices are then not checked).
        busy_ports: TCP ports that some process listens on, our own running set's left out.
        cores: processors that we may use.
        programs: where programs that a plan may need were found on the PATH, by name.
    """

    gpus: tuple[Gpu, ...] | None
    busy_ports: frozenset[int]
    cores: int
    programs: dict[str, str]
