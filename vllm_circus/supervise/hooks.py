"""What circusd calls when a process of ours comes and goes.

Hooks run inside circusd's loop: each is a few system calls, none waits. They are functions without a state, named in
circus.ini; what they need to know of the instance stands in the watcher's environment. All return True: circus takes
anything else as a wish to abort.
"""

from __future__ import annotations

import logging
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

from vllm_circus.paths import MARK
from vllm_circus.plan.types import model_of
from vllm_circus.supervise.journal import record_session

_LOG = logging.getLogger(__name__)

#: Bytes that are read at once; circus's own 1,024 make a busy engine cost eight times as much.
_CHUNK = 65536
#: Bytes that are taken out of the pipe of a dead process at most; a pipe holds 64 KiB unless somebody enlarged it.
_LAST_WORDS = 1 << 20


def before_spawn(watcher: Any, **_: Any) -> bool:
    """Make the working directory again where somebody removed it: without one, nothing can be started."""
    try:
        Path(watcher.working_dir).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        _LOG.warning("%s: its working directory is missing: %s", watcher.name, error)
    return True


def after_spawn(watcher: Any, pid: int, **_: Any) -> bool:
    """Write the new session into the journal, for a start after a `kill -9` of circusd; let its pipes flow."""
    if watcher.stream_redirector is not None:
        watcher.stream_redirector.buffer = _CHUNK
    try:
        record_session(Path(watcher.env[MARK]) / "sessions", pid)
    except OSError as error:
        _LOG.warning("%s: process %d could not be written down: %s", watcher.name, pid, error)
    return True


def before_reap(watcher: Any, process_pid: int, **_: Any) -> bool:
    """Save the last words, which say why it died: circus closes the pipes with whatever is still in them.

    It also closes them while its loop still watches them when a descendant holds the other end; the next descriptor of
    that number would then not be accepted, and with it the process it belongs to be lost.
    """
    redirector = watcher.stream_redirector
    process = watcher.processes.get(process_pid)
    if redirector is None or process is None:
        return True
    for name, pipe in redirector.get_process_pipes(process):
        if not pipe.closed:
            _drain(pipe.fileno(), lambda data, name=name: _hand_over(redirector, name, process_pid, data))
    redirector.remove_redirections(process)
    return True


def after_reap(watcher: Any, process_pid: int, exit_code: int | None = None, **_: Any) -> bool:
    """End what the process left behind in its group: circus kills no groups, and an engine without its server is lost.

    The number cannot have been given to anybody else while a process of the group lives. A worker that was killed
    leaves its socket, too. Circus starts a worker or a plugin again without a word; of models the health plugin tells.
    """
    if watcher.is_active() and exit_code and not model_of(watcher.name):
        _LOG.warning("%s: process %d ended %s", watcher.name, process_pid, _how(exit_code))
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process_pid, signal.SIGKILL)
    with suppress(OSError):
        (Path(watcher.env[MARK]) / f"{watcher.name}-{process_pid}.sock").unlink(missing_ok=True)
    return True


def _how(exit_code: int) -> str:
    """An exit code in words; circus tells signals as negative ones."""
    if exit_code > 0:
        return f"with exit code {exit_code}"
    try:
        return f"by {signal.Signals(-exit_code).name}"
    except ValueError:  # a real-time signal
        return f"by signal {-exit_code}"


def _drain(handle: int, take: Any) -> None:
    os.set_blocking(handle, False)
    total = 0
    with suppress(BlockingIOError):
        while total < _LAST_WORDS and (data := os.read(handle, _CHUNK)):
            total += len(data)
            take(data)


def _hand_over(redirector: Any, name: str, pid: int, data: bytes) -> None:
    redirector.redirect[name]({"data": data, "pid": pid, "name": name})
