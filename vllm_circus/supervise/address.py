"""Where the set is to listen, before it does: the path of the public unix socket, and ports.

Rules: what a dead set left is taken away, nothing else. A socket that somebody listens on, and a file that is no
socket, are faults to be told before anything starts: circus finds them too late, and removes them when it gives up.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path

from vllm_circus.errors import CircusError

#: Bytes of a unix socket's path, less the final NUL (unix(7), sun_path).
LONGEST_PATH = 107
_STALE = frozenset({errno.ECONNREFUSED, errno.ENOENT})


def clear_address(path: Path) -> None:
    """Make sure that `path` can be listened on; raises CircusError where it cannot."""
    if len(os.fsencode(path)) > LONGEST_PATH:
        raise CircusError(
            f"proxy.unix_socket: {path} is too long for a socket", hint=f"at most {LONGEST_PATH} bytes are possible"
        )
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        _check_folder(path.parent)
        return
    except OSError as error:
        raise CircusError(f"proxy.unix_socket: {path} cannot be looked at: {error.strerror}") from None
    if not stat.S_ISSOCK(mode):
        raise CircusError(f"proxy.unix_socket: {path} is there, and no socket", hint="remove it, or name another path")
    _remove_stale(path)


def _remove_stale(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        result = probe.connect_ex(str(path))
    if result in {0, errno.EAGAIN}:
        raise CircusError(
            f"proxy.unix_socket: somebody listens on {path} already", hint="`ss -lxp` shows who; name another path"
        )
    if result not in _STALE:
        raise CircusError(f"proxy.unix_socket: {path} is in the way: {os.strerror(result)}")
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise CircusError(f"proxy.unix_socket: the old {path} cannot be removed: {error.strerror}") from None


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise CircusError(f"proxy.unix_socket: there is no folder {folder}", hint=f"mkdir -p {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise CircusError(f"proxy.unix_socket: no file can be made in {folder}", hint="its mode or owner forbids it")


def bind_error(host: str, port: int) -> OSError | None:
    """Why this user could not listen there now; None where that is possible. Port 0 is any.

    It is tried, since the kernel's rules are its own. The port is held for a moment, which keeps nobody else from it.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        return error
    return None
