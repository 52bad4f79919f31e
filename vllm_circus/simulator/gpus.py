"""The memory of GPUs that are not there: a folder with a file for each process and card, `PID.INDEX`, of bytes.

A process has its memory for as long as it lives and its file says so. Several simulators that share a folder share its
cards, and fail as real servers do where there is not enough: at the start, or when they wake up. The engine core is the
one that has it. Two that take at the same moment may both get it, as on a real card.

Whoever runs a simulator in a program of their own may give it another `Memory`, such as that of a real card.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

VISIBLE = "CUDA_VISIBLE_DEVICES"
USUAL_SHARE = 0.92
GIB = 1 << 30
TOTAL = 80 * GIB
ASLEEP = GIB
"""What a sleeping engine still has on each card."""


class OutOfMemory(Exception):
    """A card has not enough. The message is the real server's."""


class Memory(Protocol):
    """What one engine has of its cards. The engine core calls it, and it is the calling process that has the memory."""

    def check(self) -> None:
        """Raises OutOfMemory where less is free than the engine wants to take at its start."""

    def take(self) -> None:
        """Have the engine's part of each card, whatever of it there is already. Raises OutOfMemory."""

    def sleep(self) -> None:
        """Have what a sleeping engine has."""


FindCards = Callable[[str | None, str | None, float], Memory | None]
"""From `--sim-gpus`, CUDA_VISIBLE_DEVICES and `--gpu-memory-utilization` to the memory of the engine, if it has any."""


def too_little(order: int, free: int, total: int, share: float) -> OutOfMemory:
    """What a real server says at its start about its card number `order`; sizes in bytes."""
    return OutOfMemory(
        f"ValueError: Free memory on device cuda:{order} ({free / GIB:.2f}/{total / GIB:.2f} GiB) on "
        f"startup is less than desired GPU memory utilization ({share:g}, {total * share / GIB:.2f} GiB). "
        "Decrease GPU memory utilization or reduce GPU memory used by other processes."
    )


@dataclass(frozen=True, slots=True)
class Cards:
    """The cards of one engine, and the part of each of them that it takes."""

    folder: Path
    indices: tuple[int, ...]
    share: float

    def check(self) -> None:
        """Raises OutOfMemory where less is free than the engine wants to take at its start."""
        for order, index in enumerate(self.indices):
            free = TOTAL - sum(self._held(index))
            if free < TOTAL * self.share:
                raise too_little(order, free, TOTAL, self.share)

    def take(self) -> None:
        """Have its part of each card. Raises OutOfMemory."""
        wanted = round(TOTAL * self.share)
        for order, index in enumerate(self.indices):
            if TOTAL - sum(self._held(index, but=os.getpid())) < wanted:
                raise OutOfMemory(f"torch.OutOfMemoryError: CUDA out of memory. GPU {order} has not enough.")
        self._write(wanted)

    def sleep(self) -> None:
        """Have what a sleeping engine has."""
        self._write(ASLEEP)

    def _write(self, size: int) -> None:
        for index in self.indices:
            (self.folder / f"{os.getpid()}.{index}").write_text(str(size))

    def _held(self, index: int, but: int | None = None) -> Iterator[int]:
        for file in self.folder.glob(f"*.{index}"):
            pid = int(file.stem)
            if pid != but and _lives(pid):
                yield int(file.read_text() or 0)


def _lives(pid: int) -> bool:
    """Whether it runs; a zombie has no memory any more: proc(5)."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def find_cards(folder: str | None, visible: str | None, share: float) -> Cards | None:
    """The cards that `visible` names as CUDA_VISIBLE_DEVICES does (None: the first one); None without a folder."""
    if folder is None:
        return None
    indices = (0,) if visible is None else tuple(int(word) for word in visible.split(",") if word.strip().isdecimal())
    return Cards(Path(folder), indices, share)
