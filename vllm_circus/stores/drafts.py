"""Drafts of configurations that are being set up: where they lie, and which menu has them.

Rules: a draft is one menu's alone for as long as that has it open (a `flock` beside it, which goes with the process);
another menu gets the next number. It goes with the configuration that it changes, wherever that goes. Names of
configurations have no dots, so that `draft-hall.2.json` is nothing but the second draft of `hall`.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from vllm_circus.files import private_directory, write_atomic
from vllm_circus.paths import Instance


def draft_file(folder: Path, name: str, number: int = 1) -> Path:
    """The draft of that configuration, or of a new one where the name is empty."""
    stem = f"draft-{name}" if name else "draft"
    return folder / (f"{stem}.json" if number == 1 else f"{stem}.{number}.json")


def draft_numbers(folder: Path, name: str) -> list[int]:
    """The drafts of that configuration that are there."""
    form = re.compile(rf"draft{f'-{name}' if name else ''}(?:\.([2-9]|[1-9]\d+))?\.json")
    try:
        found = [form.fullmatch(path.name) for path in folder.iterdir()]
    except OSError:
        return []
    return sorted(int(match[1] or 1) for match in found if match)


class Claim:
    """That a draft is ours, until `release`. Raises OSError where nothing can be written there."""

    def __init__(self, draft: Path) -> None:
        self._path = draft.with_name(f".{draft.name}.lock")
        self._handle: int | None = None

    def take(self) -> bool:
        """Whether it is ours now; False where somebody else has it."""
        private_directory(self._path.parent)
        while self._handle is None:
            handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(handle), self._path.stat()):
                    self._handle = handle
                    return True
            except BlockingIOError:
                return False
            except FileNotFoundError:
                pass  # whoever had it took the file away: another one is the lock
            finally:
                if self._handle is None:
                    os.close(handle)
        return True

    def release(self) -> None:
        """Somebody else may have it."""
        if self._handle is None:
            return
        with suppress(OSError):
            self._path.unlink()
        os.close(self._handle)
        self._handle = None


def follow(instance: Instance, old: str, new: str) -> None:
    """The configuration `old` is called `new` now, or is gone where that is empty: so do its drafts, of every instance.

    What a menu has open just now stays: it is written anew with every answer.
    """
    for folder, number in _drafts_of(instance, old):
        path = draft_file(folder, old, number)
        claim = Claim(path)
        with suppress(OSError):
            if not claim.take():
                continue
            try:
                if new:
                    _rename(path, folder, new)
                path.unlink(missing_ok=True)
            finally:
                claim.release()


def has_draft(instance: Instance, name: str) -> bool:
    """Whether there is a draft of changes to that configuration."""
    return any(True for _ in _drafts_of(instance, name))


def _drafts_of(instance: Instance, name: str) -> Iterator[tuple[Path, int]]:
    """Folders and numbers. All instances share the configurations, and each has a state folder of its own."""
    try:
        folders = sorted(path for path in instance.state_dir.parent.iterdir() if path.is_dir())
    except OSError:
        return
    for folder in folders:
        yield from ((folder, number) for number in draft_numbers(folder, name))


def _rename(path: Path, folder: Path, new: str) -> None:
    """Write it under the new name, which stands in it as well; one that cannot be read is no loss."""
    with suppress(ValueError, TypeError):
        values = json.loads(path.read_text(encoding="utf-8"))
        taken = draft_numbers(folder, new)
        number = next(number for number in range(1, len(taken) + 2) if number not in taken)
        write_atomic(draft_file(folder, new, number), json.dumps({**values, "name": new}, indent=1), mode=0o600)
