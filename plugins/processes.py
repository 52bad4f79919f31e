"""Processes as /proc shows them: whether one lives, and what is left of a session whose leader is gone.

vLLM's children rename themselves, which wipes their environment, so that a marker there finds nothing. The session id
stays: it is the pid of the leader, whom circus started. The kernel gives no process a number that is still in use as
a session's (alloc_pid keeps those), so a session without its leader is what that leader left behind.

Rule: only processes of our own user are ever signalled.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_GONE = frozenset("ZXx")


@dataclass(frozen=True)
class Process:
    """One line of /proc/PID/stat. `born` counts clock ticks since the machine started: with the pid it is unique."""

    pid: int
    state: str
    session: int
    born: int

    @property
    def gone(self) -> bool:
        """Whether it has ended and only waits to be reaped."""
        return self.state in _GONE


def find_process(pid: int) -> Process | None:
    """The process of that number, or None."""
    with suppress(OSError, ValueError, IndexError):
        return _read((_PROC / str(pid) / "stat").read_bytes())
    return None


def is_alive(pid: int, born: int | None = None) -> bool:
    """Whether the process runs; with `born` whether it is still that one and not another of the same number."""
    found = find_process(pid)
    return found is not None and not found.gone and born in {None, found.born}


def birth(pid: int) -> int | None:
    """When the process was born (see `Process`), None where there is none."""
    found = find_process(pid)
    return found.born if found else None


def identity(pid: int) -> str:
    """A name for a process that no other process ever has, on this boot or another."""
    boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}/{pid}/{birth(pid)}"


def leftovers(session: int) -> tuple[int, ...]:
    """What still runs in a session without its leader, and is ours.

    Empty while the leader lives: then nothing is left over (or the number belongs to somebody else by now).
    """
    return () if is_alive(session) else _members(session)


def kill_session(leader: int) -> None:
    """SIGKILL to the leader's group, then to whatever of its session is in another group."""
    found = find_process(leader)
    if found is None or found.session != leader or not _ours(leader):
        return
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)
    kill_all(_members(leader))


def kill_all(pids: tuple[int, ...]) -> None:
    """SIGKILL to each."""
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def _members(session: int) -> tuple[int, ...]:
    """Every living process of the session but its leader."""
    return tuple(
        found.pid
        for found in _everyone()
        if found.session == session and found.pid != session and not found.gone and _ours(found.pid)
    )


def _everyone() -> Iterator[Process]:
    for name in os.listdir(_PROC):  # noqa: PTH208 - names are all that is wanted, and there may be thousands
        if name.isdecimal() and (found := find_process(int(name))) is not None:
            yield found


def _ours(pid: int) -> bool:
    with suppress(OSError):
        return (_PROC / str(pid)).stat().st_uid == os.geteuid()
    return False


def _read(line: bytes) -> Process:
    """proc_pid_stat(5); the name in the second field may hold anything, brackets and spaces included."""
    rest = line[line.rindex(b")") + 2 :].split()
    return Process(int(line[: line.index(b" ")]), rest[0].decode(), int(rest[3]), int(rest[19]))
