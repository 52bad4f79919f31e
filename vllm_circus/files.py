"""Files that are never half written.

Rule: whoever kills us at any moment finds the old content or the new, never a mixture and never nothing.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def write_atomic(path: Path, content: str | bytes, *, mode: int = 0o644) -> None:
    """Replace `path` by `content`: temporary name in the same folder, fsync, rename, fsync of the folder.

    `mode` is exact (the umask plays no part). Raises OSError; the old file is then untouched.
    """
    data = content.encode() if isinstance(content, str) else content
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        os.replace(temporary, path)  # noqa: PTH105 - the name says what matters here
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)


def private_directory(path: Path) -> Path:
    """Make `path` (and its parents) if missing and set its mode to 0700; returns it.

    Raises PermissionError if somebody else owns it: what lies in it would be theirs to change.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    owner = path.stat().st_uid
    if owner != os.geteuid():
        raise PermissionError(f"{path} belongs to user {owner}, not to us (user {os.geteuid()})")
    path.chmod(0o700)
    return path


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
