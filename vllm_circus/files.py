"""Files that are never half written.

Rule: whoever kills us at any moment finds the old content or the new, never a mixture and never nothing.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vllm_circus.errors import CircusError


@dataclass(frozen=True)
class Content:
    """What tells the content of one file from another's: its bytes, and a digest of them."""

    size: int
    digest: str


def content_of(data: bytes) -> Content:
    """Of these bytes."""
    return Content(len(data), hashlib.sha256(data).hexdigest())


def version_of(path: Path) -> str:
    """What tells a file of secrets from what it was before, and nothing of what it holds. Raises OSError."""
    about = path.stat()
    return f"{about.st_mtime_ns}-{about.st_size}"


def write_atomic(path: Path, content: str | bytes, *, mode: int = 0o644) -> None:
    """Replace `path` by `content`: temporary name in the same folder, fsync, rename, fsync of the folder.

    `mode` is exact (the umask plays no part). Raises OSError, which names `path`; the old file is then untouched.
    """
    data = content.encode() if isinstance(content, str) else content
    with naming(path):
        _replace(path, data, mode)


def write_as_owner(path: Path, content: bytes, *, mode: int) -> None:
    """`write_atomic`, for a file in somebody else's folder: where root writes, it belongs to the folder's owner."""
    owner = path.parent.stat()
    write_atomic(path, content, mode=mode)
    if os.geteuid() == 0 and (owner.st_uid, owner.st_gid) != (0, 0):
        os.chown(path, owner.st_uid, owner.st_gid)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """What fails with a file that is open, or under a temporary name, does not say where: its OSError names `path`."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


@contextmanager
def file_errors() -> Iterator[None]:
    """A folder that is not ours, a full disk: something for the operator, not a bug. Raises CircusError instead."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            raise
        raise as_told(error) or CircusError(f"{error.filename}: {error.strerror}", hint=_SEE) from error


_SEE = "see what is there, and who owns it"
_ROOM = "make room there: `df -h` shows what is full, `quota` what this user may have"
_OWNER = "see who owns it, and run this as that user or have it given to this one"
_FILES = "too many files are open: `ulimit -n` shows how many may be, and raises it"
_KIND = "a file is where a folder is to be, or a folder where a file is to be: move it away, or name another"
_NAME = "no file can be called so"
#: What an error of a file tells of the machine, or of a name, and not of a mistake in this program; and what to do.
_CURES = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EFBIG: "`ulimit -f` shows how large a file may be here, and raises it",
    errno.EROFS: "what is mounted there is for reading only: mount it for writing, or keep this elsewhere",
    errno.EIO: "the disk or the terminal behind it fails: `dmesg` may say why",
    errno.EMFILE: _FILES,
    errno.ENFILE: _FILES,
    errno.EACCES: _OWNER,
    errno.EPERM: _OWNER,
    errno.ENOTDIR: _KIND,
    errno.EISDIR: _KIND,
    errno.EEXIST: _KIND,
    errno.ENAMETOOLONG: _NAME,
    errno.ELOOP: "symbolic links lead in a circle there, or no file can be called so",
}
#: Those that are told even where nobody knows of which file: nothing else than the machine brings them about.
_NAMELESS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE})
_OF_THE_NAME = frozenset({errno.ENAMETOOLONG, errno.ELOOP})


class _UnusableName(CircusError):
    """No file can be called so: a slip of whoever typed it."""

    exit_code = 2


def cure(error: OSError) -> str:
    """What to do about an error of a file; empty where nobody can tell."""
    return _CURES.get(error.errno or 0, "")


def as_told(error: OSError) -> CircusError | None:
    """What an error of a file tells the operator; None where it may be a mistake of this program."""
    if error.filename is None and error.errno not in _NAMELESS:
        return None
    if not (hint := cure(error)):
        return None
    kind = _UnusableName if error.errno in _OF_THE_NAME else CircusError
    where = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
    return kind(f"{where}{error.strerror}", hint=hint)


def _replace(path: Path, data: bytes, mode: int) -> None:
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


def make_directory(path: Path, *, mode: int) -> None:
    """Make `path` with `mode` if it is missing, and its parents so that nobody else can write there.

    Whoever can write in a parent can put another folder in our folder's place; a umask of 0 must not allow that.
    Raises OSError.
    """
    for missing in reversed([parent for parent in path.parents if not parent.exists()]):
        missing.mkdir(mode=0o755, exist_ok=True)
    path.mkdir(mode=mode, exist_ok=True)


def private_directory(path: Path) -> Path:
    """Make `path` (and its parents) if missing and set its mode to 0700; returns it.

    Raises PermissionError if somebody else owns it, or owns a folder on the way to it below /tmp and the like: what
    lies in it would be theirs to change.
    """
    make_directory(path, mode=0o700)
    owner = path.stat().st_uid
    if owner != os.geteuid():
        raise PermissionError(errno.EPERM, f"belongs to user {owner}, not to us (user {os.geteuid()})", str(path))
    path.chmod(0o700)
    for parent in _below_shared(path.resolve()):
        about = parent.stat()
        if about.st_uid not in {0, owner} or about.st_mode & stat.S_IWOTH:
            raise PermissionError(errno.EPERM, "somebody else can change what is in it", str(parent))
    return path


def _below_shared(path: Path) -> tuple[Path, ...]:
    """The folders above `path` up to the first in which everybody may make some (sticky); none where there is none."""
    parents = tuple(path.parents)
    sticky = (number for number, parent in enumerate(parents) if parent.stat().st_mode & stat.S_ISVTX)
    return parents[: next(sticky, 0)]


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
