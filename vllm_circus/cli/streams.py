"""Standard streams that take nothing any more: a pipe that `head` has closed, a hung-up terminal, a full disk.

What goes on after that, such as the orderly end of a set, must not fail because nobody hears of it.
"""

from __future__ import annotations

import io
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_GONE = select.POLLERR | select.POLLHUP | select.POLLNVAL


class OutputLost(OSError):
    """A standard stream cannot be written for another reason than that its reader has gone, such as a full disk."""

    handle = -1


class _Stream(io.FileIO):
    """The file behind a standard stream; its errors can be told from those of every other file, which name none.

    Where somebody has made it one that never blocks (a terminal or socket that is shared), it is waited for while it
    is full. `whole` is whether a write takes everything, since nobody above it asks how much it was.
    """

    whole = False

    def write(self, data: ReadableBuffer, /) -> int:
        """As FileIO does. Raises OutputLost."""
        rest = memoryview(data)
        taken = self._taken(rest)
        while self.whole and taken < rest.nbytes:
            taken += self._taken(rest[taken:])
        return taken

    def _taken(self, data: ReadableBuffer) -> int:
        try:
            while (taken := super().write(data)) is None:
                self._wait()
        except BrokenPipeError:
            raise
        except OSError as error:
            lost = OutputLost(error.errno, error.strerror)
            lost.handle = self.fileno()
            raise lost from None
        return taken

    def _wait(self) -> None:
        poll = select.poll()
        poll.register(self.fileno(), select.POLLOUT)
        poll.poll()


@contextmanager
def whoever_listens() -> Iterator[None]:
    """Write to the standard streams; where one takes nothing, the rest of this is left out and nothing is raised."""
    try:
        yield
    except OSError as error:
        if not silence(error):
            raise


def mark_streams() -> None:
    """Have standard output and standard error raise OutputLost. Those that somebody has put in their place stay."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is getattr(sys, f"__{name}__") and isinstance(stream, io.TextIOWrapper):
            setattr(sys, name, _marked(stream))


def _marked(stream: io.TextIOWrapper) -> io.TextIOWrapper:
    stream.flush()
    file = _Stream(stream.fileno(), "w", closefd=False)
    raw = file.whole = isinstance(stream.buffer, io.RawIOBase)  # PYTHONUNBUFFERED
    return io.TextIOWrapper(
        file if raw else io.BufferedWriter(file),  # as Python itself does
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def open_closed() -> None:
    """Let a standard stream that we were started without (`>&-`) lead nowhere: Python has none then."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 - open until we end


def reader_gone() -> bool:
    """Whether nobody reads standard output or standard error any more."""
    return any(_is_gone(stream) for stream in (sys.stdout, sys.stderr))


def silence(error: OSError) -> bool:
    """Let what is written to a stream that takes nothing go nowhere; returns whether there was one.

    That is a stream without a reader, and the one that `error` is about where it is an OutputLost.
    """
    mute = {stream.fileno() for stream in (sys.stdout, sys.stderr) if _is_gone(stream)}
    mute |= {error.handle} if isinstance(error, OutputLost) else set()
    for handle in mute:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, handle)  # so that what is still in its buffer finds a place, too
        os.close(nowhere)
    return bool(mute)


def _is_gone(stream: TextIO) -> bool:
    try:
        poll = select.poll()
        poll.register(stream.fileno(), 0)
        return any(events & _GONE for _, events in poll.poll(0))
    except (OSError, ValueError):  # no file behind it
        return False
