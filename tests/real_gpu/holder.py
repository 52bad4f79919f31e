"""A process that has memory of the first GPU it sees until its input ends: `python -m tests.real_gpu.holder BYTES`.

With `all-but BYTES` it leaves that much. It writes how many bytes it has, once it has them.
"""

from __future__ import annotations

import sys

from tests.real_gpu.cuda import open_devices


def main(words: list[str]) -> None:
    """Take, tell, wait."""
    device = open_devices()[0]
    size = int(words[-1])
    device.take(device.memory()[0] - size if words[0] == "all-but" else size)
    print(device.taken, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1:])
