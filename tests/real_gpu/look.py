"""`python -m tests.real_gpu.look`: what NVML says of GPU 0 every PAUSE seconds, a JSON line each, while somebody reads.

A process of its own, since a process that runs already cannot be made to find another libnvidia-ml.so.1.
"""

from __future__ import annotations

import json
import time

import pynvml

PAUSE = 0.05


def main() -> None:
    """Look, and tell."""
    pynvml.nvmlInit()
    card = pynvml.nvmlDeviceGetHandleByIndex(0)
    while True:
        begin = time.monotonic()
        memory = pynvml.nvmlDeviceGetMemoryInfo(card)
        held = {one.pid: one.usedGpuMemory for one in pynvml.nvmlDeviceGetComputeRunningProcesses(card)}
        seen = {"at": begin, "used": memory.used, "total": memory.total, "held": held}
        try:
            print(json.dumps(seen), flush=True)
        except BrokenPipeError:
            return
        time.sleep(PAUSE)


if __name__ == "__main__":
    main()
