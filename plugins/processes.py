"""What is left of a session whose leader is gone, and how it is ended.

vLLM's children rename themselves, which wipes their environment, so that a marker there finds nothing. The session id
stays: it is the pid of the leader, whom circus started. The kernel gives no process a number that is still in use as
a session's, so a session without its leader is what that leader left behind.

Rules: only processes of our own user are ever signalled; a number that was told a while ago may be another process's by
now, so a leader is only taken for ours where circusd is its parent.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from vllm_circus import logline
from vllm_circus.supervise.proc import Process, boot_id, every_process, owner_of, read_process, send_signal

_LISTEN = "0A"  # TCP_LISTEN in include/net/tcp_states.h, as /proc/net/tcp writes it


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that ended and was not reaped yet does not."""
    found = read_process(pid)
    return found is not None and found.alive


def is_started_by(parent: int, pid: int) -> bool:
    """Whether the process leads a session and is a child of `parent`, as every one is that circus starts for us.

    One that ended and was not reaped yet is, too. A stranger that got the number of one of ours is not.
    """
    found = read_process(pid)
    return found is not None and found.session == pid and found.parent == parent


def identity(pid: int) -> str:
    """A name for a process that no other process ever has, in this boot or another."""
    found = read_process(pid)
    return f"{boot_id()}/{pid}/{found.started if found else 0}"


def leftovers(session: int) -> tuple[Process, ...]:
    """What still runs in a session without its leader, and is ours.

    Empty while the leader lives: then nothing is left over (or the number belongs to somebody else by now).
    """
    return () if is_alive(session) else _members(session)


def kill_session(leader: int) -> None:
    """SIGKILL to the leader's group, then to whatever of its session is in another group."""
    found = read_process(leader)
    if found is None or found.session != leader or owner_of(leader) != os.geteuid():
        return
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)
    kill_all(_members(leader))


def kill_all(processes: Iterable[Process]) -> None:
    """SIGKILL to each that is still there."""
    for process in processes:
        with suppress(PermissionError):
            send_signal(process, signal.SIGKILL)


def _members(session: int) -> tuple[Process, ...]:
    """Every living process of the session but its leader."""
    user = os.geteuid()
    return tuple(
        found
        for found in every_process()
        if found.session == session and found.pid != session and found.alive and owner_of(found.pid) == user
    )


def terminate(pid: int) -> None:
    """SIGTERM to a process that may be gone."""
    found = read_process(pid)
    if found is not None and owner_of(pid) == os.geteuid():
        with suppress(PermissionError):
            send_signal(found, signal.SIGTERM)


def oom_kills() -> int:
    """How often the kernel has ended a process for want of memory since the machine started; 0 where it does not tell.

    proc_vmstat(5): the counter `oom_kill`, of all control groups together.
    """
    with suppress(OSError, ValueError):
        for line in Path("/proc/vmstat").read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


def name_of(pid: int) -> str:
    """What a process is called, cleaned; empty where it is gone, or of another namespace."""
    with suppress(OSError):
        return logline.clean(Path(f"/proc/{pid}/comm").read_text(errors="replace").strip())
    return ""


def listener_on(port: int) -> int | None:
    """A process that listens on a TCP port; None where it is not ours to see."""
    wanted = {f"socket:[{inode}]" for table in ("tcp", "tcp6") for inode in _listening(table, port)}
    for process in every_process() if wanted else ():
        with suppress(OSError):
            for handle in Path(f"/proc/{process.pid}/fd").iterdir():
                with suppress(OSError):
                    if str(handle.readlink()) in wanted:
                        return process.pid
    return None


def _listening(table: str, port: int) -> Iterator[str]:
    """The inodes of sockets that listen on the port: proc(5)."""
    with suppress(OSError):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            fields = line.split()
            if len(fields) > 9 and fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                yield fields[9]
