"""One circusd per instance.

The lock is a `flock` on a file of the run directory, so it goes with the process that holds it, however that ends; the
pid inside is for showing. The file itself is never removed: a second one of the same name would be a second lock.

The run directory is locked as well, since what clears up old files in /tmp passes over locked folders: tmpfiles.d(5).
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from vllm_circus.errors import CircusError
from vllm_circus.files import naming, private_directory
from vllm_circus.paths import Instance
from vllm_circus.stores.locking import acquire

#: Somebody who only asks holds the lock for microseconds: a start tries again for this long, in seconds.
_PATIENCE = 0.5
_PAUSE = 0.02


@contextmanager
def hold_lock(instance: Instance) -> Iterator[None]:
    """Hold the instance's lock for as long as the context lasts.

    Raises CircusError naming the holder where another process has it.
    """
    private_directory(instance.run_dir)
    # Python opens without inheritance, so no child keeps the lock after us.
    handle = os.open(instance.lock, os.O_RDWR | os.O_CREAT, 0o600)
    folder = os.open(instance.run_dir, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):  # somebody clears up at this very moment
            fcntl.flock(folder, fcntl.LOCK_SH | fcntl.LOCK_NB)
        if not _acquire(handle):
            raise CircusError(
                f"instance {instance.name!r} runs already: {_holder(instance.lock)}",
                hint="`vllm-circus down` stops it; `--instance NAME` runs another one beside it",
            )
        os.ftruncate(handle, 0)
        _write_pid(handle, instance.lock)
        yield
        os.ftruncate(handle, 0)
    finally:
        os.close(folder)
        os.close(handle)


def lock_holder(instance: Instance) -> int | None:
    """The pid of the process that holds the instance's lock, or None.

    0 is a holder that has not yet written its pid. Raises PermissionError where the lock is another user's: the pid in
    it may be a trap. Root looks at everybody's.
    """
    try:
        handle = os.open(instance.lock, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        if os.geteuid() not in {0, os.fstat(handle).st_uid}:
            raise PermissionError(errno.EPERM, "belongs to another user", str(instance.lock))
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read_pid(instance.lock)
    finally:
        os.close(handle)
    return None


@contextmanager
def hold_change(instance: Instance, tell: Callable[[str], None] = lambda _text: None) -> Iterator[None]:
    """Be the only one who changes what a running set goes by; whoever comes meanwhile waits, and is told for whom.

    Raises CircusError where that one does not end, and OSError.
    """
    handle = os.open(instance.run_dir / "change.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        acquire(handle, "what the running set goes by", tell)
        yield
    finally:
        os.close(handle)


@dataclass(frozen=True)
class Fallen:
    """A circusd that came to no orderly end: its pid, and, as seconds since 1970, its start and its set's last word."""

    pid: int
    since: float
    last_word: float

    def __str__(self) -> str:
        since, last = _local(self.since), _local(self.last_word)
        return f"circusd (process {self.pid}, since {since}) was killed or died; the last word of its set is of {last}"


def find_fallen(instance: Instance) -> Fallen | None:
    """The circusd that ran last, if it came to no orderly end: that takes the file of its pid away.

    Only sensible while nobody else runs the instance. The last word is the health plugin's, which outlives circusd by
    the moment that it takes to say so.
    """
    try:
        pid, since = _read_pid(instance.pidfile), instance.pidfile.stat().st_mtime
    except OSError:
        return None
    try:
        last_word = instance.log("health").stat().st_mtime
    except OSError:
        last_word = since
    return Fallen(pid, since, max(since, last_word))


def _acquire(handle: int) -> bool:
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(_PAUSE)
        else:
            return True


def _write_pid(handle: int, path: Path) -> None:
    with naming(path):
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)


def _read_pid(path: Path) -> int:
    text = path.read_text().strip()
    return int(text) if text.isdecimal() else 0


def _holder(path: Path) -> str:
    pid = _read_pid(path)
    return f"process {pid or 'unknown'}, since {_local(path.stat().st_mtime)}"


def _local(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
