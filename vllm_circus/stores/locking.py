"""One writer at a time.

The lock is a `flock` on a file beside what is written, or on that itself, so it goes with the process that holds it,
however that ends.
Rules: readers need no lock, since files are replaced whole; a lock is held for the time of a write and never while
somebody is asked anything; whoever waits is told for whom, and does not wait for ever.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path

from vllm_circus.errors import CircusError
from vllm_circus.files import naming
from vllm_circus.logline import clean

#: Seconds until somebody who waits is told for whom, and until he gives up.
TELL_AFTER = 1.0
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
        with naming(path):
            acquire(handle, what, tell, patience=patience)
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(handle)


def acquire(handle: int, what: str, tell: Callable[[str], None], *, patience: float = GIVE_UP_AFTER) -> None:
    """Lock an open file, which goes with its handle; `tell` takes a sentence for whoever waits.

    Raises CircusError naming the holder where it does not end within `patience` seconds, and OSError.
    """
    began, told = time.monotonic(), False
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waited = time.monotonic() - began
            if waited > patience:
                hint = "end it, or try again when it has ended; nothing was written"
                raise CircusError(f"{_holder(handle)} is changing {what} and does not end", hint=hint) from None
            if waited > TELL_AFTER and not told:
                told = True
                tell(f"waiting for {_holder(handle)}, which is changing {what}")
            time.sleep(_PAUSE)
        else:
            return


def _holder(handle: int) -> str:
    """Who has the lock of that file, as far as we may know."""
    pid = _holder_pid(handle)
    if not pid:
        return "another process"
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        words = []
    command = short_command(words)
    return f"process {pid} ({command})" if command else f"process {pid}"


def _holder_pid(handle: int) -> int:
    """Its pid, 0 where nobody tells.

    The kernel's list has lines such as `1: FLOCK ADVISORY WRITE 3412 fe:00:2151464 0 EOF`: proc_locks(5). Some file
    systems are called otherwise there; a file that is nothing but a lock has the pid in it.
    """
    about = os.fstat(handle)
    place = f"{os.major(about.st_dev):02x}:{os.minor(about.st_dev):02x}:{about.st_ino}"
    try:
        lines = Path("/proc/locks").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        lines = []
    for words in map(str.split, lines):
        if len(words) > 5 and (words[1], words[5]) == ("FLOCK", place) and words[4].isdecimal():
            return int(words[4])
    noted = os.pread(handle, 32, 0).strip()
    return int(noted) if noted.isdigit() else 0


def short_command(words: Sequence[str]) -> str:
    """A program and what it was told to do, without its options: those may be secrets."""
    rest = [word for word in words if word]
    if len(rest) > 1 and Path(rest[0]).name.startswith("python") and not rest[1].startswith("-"):
        del rest[0]
    plain = list(takewhile(lambda word: not word.startswith("-"), rest[1:3]))
    return clean(" ".join((Path(rest[0]).name, *plain))) if rest else ""
