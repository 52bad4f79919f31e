"""The simulator as `vllm`, with an engine core that has memory of the GPUs which CUDA_VISIBLE_DEVICES names.

As vLLM does, it refuses to start where less is free than `--gpu-memory-utilization` says, has that much when it is
ready, gives it back when it is put to sleep, and takes it again to wake up; a context it has throughout.

What happens is told in the file that VLLM_CIRCUS_TEST_JOURNAL names, a line each: `WHAT PID TIME`, of the steady clock,
where WHAT is start, took, gave or refused.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from tests.real_gpu.cuda import Device, Failed, open_devices
from tests.real_gpu.cuda import OutOfMemory as CudaOutOfMemory
from vllm_circus.simulator.__main__ import main
from vllm_circus.simulator.gpus import GIB, OutOfMemory, too_little

JOURNAL = "VLLM_CIRCUS_TEST_JOURNAL"


class CudaMemory:
    """A `Memory` of real cards."""

    def __init__(self, share: float) -> None:
        self._share = share
        self._devices: list[Device] = []

    def check(self) -> None:
        """Open the cards, and raise OutOfMemory where too little is free."""
        try:
            self._devices = open_devices()
        except (Failed, OSError) as error:
            raise OutOfMemory(f"RuntimeError: {error}") from None
        for order, device in enumerate(self._devices):
            free, total = device.memory()
            if free < total * self._share:
                note("refused")
                raise too_little(order, free, total, self._share)

    def take(self) -> None:
        """Have this engine's part of each card."""
        for order, device in enumerate(self._devices):
            free, total = device.memory()
            try:
                device.take(round(total * self._share))
            except CudaOutOfMemory:
                note("refused")
                raise OutOfMemory(_words(order, device, free, total, self._share)) from None
        note("took")

    def sleep(self) -> None:
        """Have the contexts alone."""
        for device in self._devices:
            device.give_back()
        note("gave")


def _words(order: int, device: Device, free: int, total: int, share: float) -> str:
    missing = round(total * share) - device.taken
    return (
        f"torch.OutOfMemoryError: CUDA out of memory. Tried to allocate {missing / GIB:.2f} GiB. GPU {order} has a "
        f"total capacity of {total / GIB:.2f} GiB of which {free / GIB:.2f} GiB is free."
    )


def note(what: str) -> None:
    """Write a line of the journal."""
    if path := os.environ.get(JOURNAL):
        with Path(path).open("a") as file:
            file.write(f"{what} {os.getpid()} {time.monotonic()}\n")


if __name__ == "__main__":
    if "serve" in sys.argv[1:2]:
        note("start")
    sys.exit(main(find_cards=lambda _folder, _visible, share: CudaMemory(share)))
