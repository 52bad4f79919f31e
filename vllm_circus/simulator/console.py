"""What the simulator prints: the same lines, prefixes and streams as the real server.

The engine's logger writes to stdout with the process named in front; uvicorn's access lines go to stdout without
that; its start-up lines, tracebacks and the progress bar of the weights go to stderr.
"""

from __future__ import annotations

import contextlib
import os
import time

STDOUT = 1
STDERR = 2


def write(descriptor: int, text: str) -> None:
    """Write all of `text` at once; a reader that has gone is no reason to stop serving."""
    data = text.encode("utf-8", "replace")
    with contextlib.suppress(OSError):
        while data:
            data = data[os.write(descriptor, data) :]


class Console:
    """The log of one process of the tree: `(Worker pid=7) INFO 11-23 14:31:53 [model.py:733] text`."""

    def __init__(self, role: str) -> None:
        self._prefix = f"({role} pid={os.getpid()})"

    def say(self, source: str, text: str) -> None:
        """Log at level INFO as the file and line `source`, for example `model.py:733`."""
        self._log("INFO", source, text)

    def complain(self, source: str, text: str) -> None:
        """Log at level ERROR; every line of a text of several lines gets the prefix, as the real logger does."""
        self._log("ERROR", source, text)

    def traceback(self, frames: tuple[str, ...], error: str) -> None:
        """Write an uncaught error to stderr: a stack of `frames` (file, line and function) and its last line."""
        lines = ["Traceback (most recent call last):", *(f"  File {frame}" for frame in frames), error]
        write(STDERR, "".join(f"{self._prefix} {line}\n" for line in lines))

    def _log(self, level: str, source: str, text: str) -> None:
        head = f"{self._prefix} {level} {time.strftime('%m-%d %H:%M:%S')} [{source}] "
        write(STDOUT, "".join(f"{head}{line}\n" for line in text.split("\n")))


def uvicorn(text: str) -> None:
    """Write a line of uvicorn's own logger (stderr)."""
    write(STDERR, f"INFO:     {text}\n")


def access(client: str, method: str, target: str, version: str, status: str) -> None:
    """Write one line of the access log (stdout); `status` is the code and its phrase."""
    write(STDOUT, f'INFO:     {client} - "{method} {target} HTTP/{version}" {status}\n')


def progress(done: int, total: int, elapsed: float) -> None:
    """Draw the progress bar of the weights (stderr): it begins with a carriage return, and yet ends its line."""
    rate = f"{done / elapsed:5.2f}it/s" if done and elapsed else "?it/s"
    left = elapsed / done * (total - done) if done else None
    eta = _clock(left) if left is not None else "?"
    bar = f"Loading safetensors checkpoint shards: {100 * done // total:3d}% Completed | {done}/{total}"
    write(STDERR, f"\r{bar} [{_clock(elapsed)}<{eta}, {rate}]\n" + ("\n" if done == total else ""))


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60:02d}:{int(seconds) % 60:02d}"
