"""The end of a set: in which order its processes go, and how long each may take.

The proxy goes first, while the models still answer what is in flight; then all models at once; then whatever watched
them. Each process gets SIGTERM, after its watcher's `graceful_timeout` SIGKILL for its whole group. So the end takes at
most the proxy's grace, plus the longest of the models', plus that of the plugins.

No lock of circus is taken: a command that holds it meanwhile finds that nothing can be spawned any more, and that its
processes are dead. circus's own `stop` of a watcher comes last, when nothing lives: before that it could wait inside
circusd's loop, for ever, for a process that somebody else is stopping.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

_LOG = logging.getLogger(__name__)

#: How circus calls the watchers of plugins.
PLUGIN = "plugin:"
#: Seconds that a plugin may take: it has nothing to finish.
PLUGIN_GRACE = 5.0
#: Seconds that the kernel gets to take a killed process away; one that waits for a broken device stays longer.
KILL_GRACE = 10.0
_POLL = 0.05


async def end_everything(watchers: Iterable[Any]) -> None:
    """Stop every watcher of an arbiter, in order. Logs what could not be ended."""
    everything = tuple(watchers)
    for watcher in everything:
        watcher.hooks["before_spawn"] = _refuse_spawn
    stages = stages_of(everything)
    bound = sum(max(map(grace_of, stage), default=0.0) for stage in stages)
    _LOG.info("stopping: everything is gone in %g seconds at most", bound)
    for stage in stages:
        await asyncio.gather(*map(_end_watcher, stage))


def stages_of(watchers: Iterable[Any]) -> tuple[tuple[Any, ...], ...]:
    """Watchers in the order of their end: what holds the public socket, the rest, plugins."""
    everything = tuple(watchers)
    plugins = tuple(watcher for watcher in everything if watcher.name.startswith(PLUGIN))
    front = tuple(watcher for watcher in everything if watcher.use_sockets and watcher not in plugins)
    rest = tuple(watcher for watcher in everything if watcher not in plugins and watcher not in front)
    return front, rest, plugins


def grace_of(watcher: Any) -> float:
    """Seconds between SIGTERM and SIGKILL."""
    grace = float(watcher.graceful_timeout)
    return min(grace, PLUGIN_GRACE) if watcher.name.startswith(PLUGIN) else grace


async def _end_watcher(watcher: Any) -> None:
    start = time.monotonic()
    grace = grace_of(watcher)
    told: set[int] = set()
    while living := [process for process in watcher.processes.values() if process.is_alive()]:
        waited = time.monotonic() - start
        if waited > grace + KILL_GRACE:
            _LOG.error("%s: cannot be ended: %s", watcher.name, [process.pid for process in living])
            return
        for process in living:
            if waited >= grace:
                _kill_group(process.pid)
            elif process.pid not in told:
                told.add(process.pid)
                _terminate(watcher, process)
        await asyncio.sleep(_POLL)
    while watcher.is_stopping():  # noqa: ASYNC110 - an earlier command stops it, and circus has no event for its end
        await asyncio.sleep(_POLL)
    await watcher._stop(True)  # noqa: SLF001 - `stop` would take the lock


def _terminate(watcher: Any, process: Any) -> None:
    """SIGTERM, and circus's event for it, unless a command has sent it already."""
    if process.stopping:
        return
    with suppress(OSError):
        watcher.send_signal(process.pid, watcher.stop_signal)
        watcher.notify_event("kill", {"process_pid": process.pid, "time": time.time()})


def _kill_group(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _refuse_spawn(**_: Any) -> bool:
    return False
