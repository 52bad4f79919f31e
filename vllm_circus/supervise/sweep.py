"""What an earlier circusd left behind: found, ended, and proven gone.

A process is ours when it carries our mark in its environment, or when it belongs to a session of the journal. Nothing
else is ever touched, whatever its command line looks like. Judged so:

- a living leader with the pid and start time of the journal: its whole session is ours;
- a leader that is gone: the kernel gives its number to nobody while a process is in that session, yet the session may
  have ended and another one, with the same number, may have lost its leader too. So a member counts as ours only if
  its environment carries our mark, or says nothing at all because the process wrote over it;
- a leader with another start time: a stranger's session.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Collection, Iterable

from vllm_circus.errors import CircusError
from vllm_circus.paths import MARK, Instance
from vllm_circus.supervise.journal import Session, read_sessions, write_sessions
from vllm_circus.supervise.lock import lock_holder
from vllm_circus.supervise.proc import Process, ancestors, environ_of, every_process, owner_of, send_signal
from vllm_circus.supervise.secrets import remove_secrets

#: Seconds that leftovers get to go by themselves, and that the kernel gets to take away the killed ones.
TERM_GRACE = 3.0
KILL_GRACE = 15.0
_POLL = 0.05


def find_leftovers(instance: Instance) -> tuple[Process, ...]:
    """Every living process of an earlier set of `instance`; not this process, nor what it descends from.

    Only sensible while nobody else runs the instance: the processes of a running set look the same.
    """
    sessions = read_sessions(instance.sessions)
    mark = _mark(instance)
    spared = ancestors(os.getpid())
    user = os.geteuid()
    table = {process.pid: process for process in every_process()}
    return tuple(
        process
        for process in table.values()
        if process.alive
        and process.pid not in spared
        and owner_of(process.pid) == user
        and (_is_marked(process, mark) or _is_member(process, table, sessions, mark))
    )


def end_leftovers(
    instance: Instance, *, grace: float = TERM_GRACE, give_up: Callable[[], bool] = lambda: False
) -> tuple[Process, ...]:
    """End every leftover: SIGTERM, after `grace` seconds SIGKILL, until none is found any more.

    Returns those that were ended; none are once somebody else runs the instance. `give_up` is asked between the steps.
    Raises CircusError when one cannot be ended.
    """
    ended: dict[tuple[int, int], Process] = {}
    start = time.monotonic()
    while lock_holder(instance) in {None, os.getpid()} and (left := find_leftovers(instance)) and not give_up():
        waited = time.monotonic() - start
        if waited > grace + KILL_GRACE:
            raise CircusError(
                f"processes of an earlier set cannot be ended: {_describe(left)}",
                hint="a process in state D waits for a device; look at dmesg, or restart the machine",
            )
        kill = waited >= grace
        for process in left:
            identity = (process.pid, process.started)
            if kill or identity not in ended:
                send_signal(process, signal.SIGKILL if kill else signal.SIGTERM)
            ended[identity] = process
        time.sleep(_POLL)
    return tuple(ended.values())


def end_lost(instance: Instance, owned: Collection[int]) -> int:
    """SIGKILL what is left of sessions whose leaders circusd (this process) does not look after any more.

    `owned` are the pids that it does look after. Sessions of which nothing is left go out of the journal. Returns how
    many processes were killed. circus forgets a process without calling a hook when it dies in an unlucky moment.
    """
    sessions = read_sessions(instance.sessions)
    lost = frozenset(session for session in sessions if session.leader not in owned)
    if not lost:
        return 0
    table = {process.pid: process for process in every_process()}
    mark = _mark(instance)
    left = [process for process in table.values() if process.alive and _is_member(process, table, lost, mark)]
    if left:
        return sum(send_signal(process, signal.SIGKILL) for process in left)
    write_sessions(instance.sessions, sessions - lost)
    return 0


def remove_run_files(instance: Instance) -> None:
    """Take away what only makes sense while the set runs. For whoever holds the lock, when no process is left."""
    remove_secrets(instance)
    for path in (instance.pidfile, instance.sessions, instance.last_read, *instance.run_dir.glob("*.sock")):
        path.unlink(missing_ok=True)


def _mark(instance: Instance) -> bytes:
    return f"{MARK}={instance.run_dir}".encode()


def _is_marked(process: Process, mark: bytes) -> bool:
    return mark in (environ_of(process.pid) or ())


def _is_member(process: Process, table: dict[int, Process], sessions: frozenset[Session], mark: bytes) -> bool:
    """Whether a process belongs to one of `sessions`, by the rules above."""
    known = {session.started for session in sessions if session.leader == process.session}
    if not known:
        return False
    leader = table.get(process.session)
    if leader is not None:
        return leader.started in known
    return process.started >= min(known) and (_is_marked(process, mark) or not environ_of(process.pid))


def _describe(processes: Iterable[Process]) -> str:
    return ", ".join(f"{process.pid} (state {process.state})" for process in processes)
