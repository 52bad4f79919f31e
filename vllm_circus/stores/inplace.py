"""Changing a file that is not ours to lock beside: a models file, wherever it lies.

Rules: only the text that was read is replaced, and nobody who does likewise comes in between; a link stays a link, and
mode and owner stay what they were.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from vllm_circus.config.load import decode, read_bytes
from vllm_circus.files import file_errors, write_atomic
from vllm_circus.stores.locking import GIVE_UP_AFTER, ChangedMeanwhile, acquire


def read_text(path: Path) -> str:
    """Raises ConfigError where it cannot be read as text."""
    return decode(read_bytes(path), str(path))


def replace_text(
    path: Path,
    before: str,
    after: str,
    tell: Callable[[str], None] = lambda _text: None,
    *,
    patience: float = GIVE_UP_AFTER,
) -> None:
    """Put `after` in the place of `before`; `tell` takes a sentence for whoever waits.

    Raises ChangedMeanwhile where the file is another by now, and CircusError where it cannot be written, or where
    somebody else is at it for more than `patience` seconds.
    """
    target = path.resolve()
    with file_errors(), _alone(target, tell, patience):
        if read_text(target) != before:
            raise ChangedMeanwhile(f"{path} was changed meanwhile", hint="nothing was written; look at it, try again")
        about = target.stat()
        write_atomic(target, after, mode=about.st_mode & 0o777)
        if os.geteuid() == 0 and (about.st_uid, about.st_gid) != (0, 0):
            os.chown(target, about.st_uid, about.st_gid)


@contextmanager
def _alone(path: Path, tell: Callable[[str], None], patience: float) -> Iterator[None]:
    """Hold the lock of the file that has this name; whoever had it before may have put another file there."""
    while True:
        handle = os.open(path, os.O_RDONLY)
        try:
            acquire(handle, f"the models file {path}", tell, patience=patience)
            if os.path.samestat(os.fstat(handle), path.stat()):
                yield
                return
        finally:
            os.close(handle)
