"""`python -m tests.bench.pinned CORE ARGV…`: becomes ARGV, on one core, to be ended when whoever started it ends."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # prctl(2); the setting survives the exec


def main() -> None:
    core, *argv = sys.argv[1:]
    os.sched_setaffinity(0, {int(core)})
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    os.execvp(argv[0], argv)


if __name__ == "__main__":
    main()
