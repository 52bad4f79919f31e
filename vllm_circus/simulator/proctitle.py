"""Name a process the way the engine's own processes are named.

The real engine core and its workers overwrite the memory that the kernel shows as their command line, and with it
the memory of their environment: `/proc/PID/cmdline` reads `VLLM::EngineCore` and `/proc/PID/environ` nothing but
zeros. Whoever looks for processes by an environment marker must cope with that, so the simulator does the same.
"""

from __future__ import annotations

import signal
from pathlib import Path

PR_SET_NAME = 15
"""prctl(2): the short name, at most 15 bytes, that `ps -o comm` shows."""

PR_SET_PDEATHSIG = 1


def set_title(title: str) -> None:
    """Show `title` as this process's command line, and wipe the environment that the kernel shows.

    `os.environ` keeps its values: it is a copy. C code that calls getenv(3) finds empty strings.
    """
    import ctypes

    name = title.encode()
    start, size = _shown_memory()
    if size > len(name):
        ctypes.memset(start, 0, size)
        ctypes.memmove(start, name, len(name))
    ctypes.CDLL(None).prctl(PR_SET_NAME, name[:15], 0, 0, 0)


def die_with_parent() -> None:
    """End this process, the hard way, as soon as the process that forked it ends (prctl(2), PR_SET_PDEATHSIG)."""
    import ctypes

    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _shown_memory() -> tuple[int, int]:
    """Where the command line and the environment of this process lie: first address, size in bytes.

    Fields 48 to 51 of /proc/self/stat (proc(5)): arg_start, arg_end, env_start, env_end.
    """
    fields = Path("/proc/self/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    start, end = int(fields[45]), int(fields[48])
    return start, max(0, end - start)
