"""One writer at a time.

The lock is a `flock` on a file beside what is written, so it goes with the process that holds it, however that ends.
Rules: readers need no lock, since files are replaced whole; a lock is held for the time of a write and never while
somebody is asked anything; whoever waits is told for whom, and does not wait for ever.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from vllm_circus.errors import CircusError

#: Seconds until somebody who waits is told for whom, and until he gives up.
TELL_AFTER = 2.0
GIVE_UP_AFTER = 30.0
_PAUSE = 0.02


class ChangedMeanwhile(CircusError):
    """Somebody else wrote the file since it was read."""


@contextmanager
def hold(path: Path, what: str, tell: Callable[[str], None], *, patience: float = GIVE_UP_AFTER) -> Iterator[None]:
    """Be the only one who changes `what` for as long as the context lasts; `path` is the lock's file.

    Raises CircusError naming the holder where it does not end within `patience` seconds, and OSError.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _wait(handle, path, what, tell, patience)
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(handle)


def _wait(handle: int, path: Path, what: str, tell: Callable[[str], None], patience: float) -> None:
    began, told = time.monotonic(), False
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waited = time.monotonic() - began
            if waited > patience:
                hint = "end it, or try again when it has ended"
                raise CircusError(f"{what}: {_holder(path)} is changing them and does not end", hint=hint) from None
            if waited > TELL_AFTER and not told:
                told = True
                tell(f"waiting for {_holder(path)}, which is changing {what}")
            time.sleep(_PAUSE)
        else:
            return


def _holder(path: Path) -> str:
    text = path.read_text(encoding="ascii", errors="replace").strip()
    return f"process {text}" if text.isdecimal() else "another process"
