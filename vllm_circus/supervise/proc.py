"""Processes as /proc shows them, and signals that reach the process that was meant.

Rule: a pid alone names nobody, since the kernel gives it out again. A process is its pid and its start time; a signal
goes through a pidfd taken before that is checked, so that it cannot hit a successor.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_PROC = Path("/proc")


@dataclass(frozen=True)
class Process:
    """One process. `started` counts clock ticks since boot; `state` is the letter of proc(5)."""

    pid: int
    state: str
    parent: int
    group: int
    session: int
    started: int

    @property
    def alive(self) -> bool:
        """Not a zombie: those hold nothing any more, and only their parent can take them away."""
        return self.state not in {"Z", "X", "x"}

    @property
    def halted(self) -> bool:
        """Somebody stopped it (SIGSTOP, Ctrl-Z): it is there and does nothing."""
        return self.state == "T"


def read_process(pid: int) -> Process | None:
    """The process of that pid, zombies included, or None."""
    try:
        stat = (_PROC / str(pid) / "stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name stands in parentheses and may hold anything, parentheses and blanks too: proc(5).
    fields = stat[stat.rindex(b")") + 2 :].split()
    return Process(pid, fields[0].decode(), int(fields[1]), int(fields[2]), int(fields[3]), int(fields[19]))


def is_halted(pid: int) -> bool:
    """Whether the process of that pid is `halted`; False where there is none."""
    process = read_process(pid)
    return process is not None and process.halted


def every_process() -> Iterator[Process]:
    """Every process that there is, zombies included."""
    for name in os.listdir(_PROC):  # noqa: PTH208 - twice as fast as iterdir, and this is done often
        if name.isdecimal() and (process := read_process(int(name))):
            yield process


def owner_of(pid: int) -> int | None:
    """The user id that a process runs as, or None when it is gone."""
    try:
        return (_PROC / str(pid)).stat().st_uid
    except FileNotFoundError:
        return None


def environ_of(pid: int) -> tuple[bytes, ...] | None:
    """`NAME=value` entries that a process was started with; None where they cannot be read.

    Programs that set their title write over this memory: what is left then has no `=` in it, or is empty.
    """
    try:
        data = (_PROC / str(pid) / "environ").read_bytes()
    except (OSError, ProcessLookupError):
        return None
    return tuple(entry for entry in data.split(b"\0") if b"=" in entry)


@cache
def boot_id() -> str:
    """Names this boot of the machine: start times of other boots mean nothing."""
    return (_PROC / "sys/kernel/random/boot_id").read_text().strip()


def ancestors(pid: int) -> frozenset[int]:
    """`pid` and every process above it."""
    line = {pid}
    while (process := read_process(pid)) and process.parent and process.parent not in line:
        pid = process.parent
        line.add(pid)
    return frozenset(line)


def send_signal(process: Process, signum: signal.Signals) -> bool:
    """Signal exactly this process; False when it is gone. Raises PermissionError where it is not ours to signal."""
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
        return _send_plainly(process, signum)  # kernels before 5.3, and some sandboxes
    try:
        if not _is_still(process):
            return False
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, signum)
            return True
        return False
    finally:
        os.close(handle)


def _send_plainly(process: Process, signum: signal.Signals) -> bool:
    if not _is_still(process):
        return False
    with suppress(ProcessLookupError):
        os.kill(process.pid, signum)
        return True
    return False


def _is_still(process: Process) -> bool:
    now = read_process(process.pid)
    return now is not None and now.started == process.started
