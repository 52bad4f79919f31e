"""The journal of sessions: every process that circusd starts leads one, and its descendants stay in it.

An engine's workers set their own titles and so lose the mark in their environment; what still ties them to us after
circusd was killed is their session. A line is `pid start-time boot-id`, appended when a process is spawned. It is
read by the next start, and thrown away once nothing is left.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from vllm_circus.files import write_atomic
from vllm_circus.supervise.proc import boot_id, read_process


@dataclass(frozen=True)
class Session:
    """A session that we started: the pid of its leader, when that started (clock ticks since boot), in which boot."""

    leader: int
    started: int
    boot: str

    def __str__(self) -> str:
        return f"{self.leader} {self.started} {self.boot}\n"


def record_session(journal: Path, pid: int) -> Session | None:
    """Write down that `pid` was just started; None when it is gone already. Takes microseconds. Raises OSError."""
    process = read_process(pid)
    if process is None:
        return None
    session = Session(pid, process.started, boot_id())
    handle = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.write(handle, str(session).encode())
    finally:
        os.close(handle)
    return session


def read_sessions(journal: Path) -> frozenset[Session]:
    """Every session in the journal that was started in this boot; lines cut by a crash are passed over."""
    try:
        text = journal.read_text(errors="replace")
    except FileNotFoundError:
        return frozenset()
    sessions = (_parse(line) for line in text.splitlines())
    return frozenset(session for session in sessions if session and session.boot == boot_id())


def write_sessions(journal: Path, sessions: Iterable[Session]) -> None:
    """Replace the journal, atomically. Raises OSError."""
    write_atomic(journal, "".join(sorted(map(str, sessions))), mode=0o600)


def _parse(line: str) -> Session | None:
    match line.split():
        case [leader, started, boot] if leader.isdecimal() and started.isdecimal():
            return Session(int(leader), int(started), boot)
    return None
