"""The memory of GPUs that are not there: a folder with a file for each process and card, `PID.INDEX`, of bytes.

A process has its memory for as long as it lives and its file says so. Several simulators that share a folder share its
cards, and fail as real servers do where there is not enough: at the start, or when they wake up. The engine core is the
one that has it. Two that take at the same moment may both get it, as on a real card.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

VISIBLE = "CUDA_VISIBLE_DEVICES"
USUAL_SHARE = 0.92
GIB = 1 << 30
TOTAL = 80 * GIB
ASLEEP = GIB
"""What a sleeping engine still has on each card."""


class OutOfMemory(Exception):
    """A card has not enough. The message is the real server's."""


@dataclass(frozen=True, slots=True)
class Cards:
    """The cards of one engine, and the part of each of them that it takes."""

    folder: Path
    indices: tuple[int, ...]
    share: float

    def check(self) -> None:
        """Raises OutOfMemory where less is free than the engine wants to take at its start."""
        wanted = TOTAL * self.share
        for order, index in enumerate(self.indices):
            free = TOTAL - sum(self._held(index))
            if free < wanted:
                raise OutOfMemory(
                    f"ValueError: Free memory on device cuda:{order} ({free / GIB:.2f}/{TOTAL / GIB:.2f} GiB) on "
                    f"startup is less than desired GPU memory utilization ({self.share:g}, {wanted / GIB:.2f} GiB). "
                    "Decrease GPU memory utilization or reduce GPU memory used by other processes."
                )

    def take(self, pid: int) -> None:
        """Let a process have its part of each card. Raises OutOfMemory."""
        wanted = round(TOTAL * self.share)
        for order, index in enumerate(self.indices):
            if TOTAL - sum(self._held(index, but=pid)) < wanted:
                raise OutOfMemory(f"torch.OutOfMemoryError: CUDA out of memory. GPU {order} has not enough.")
        self._write(pid, wanted)

    def sleep(self, pid: int) -> None:
        """Let a process have what a sleeping engine has."""
        self._write(pid, ASLEEP)

    def _write(self, pid: int, size: int) -> None:
        for index in self.indices:
            (self.folder / f"{pid}.{index}").write_text(str(size))

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
