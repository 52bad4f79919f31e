"""Standard streams whose reader has gone: a pipe that `head` has closed, a terminal that was hung up.

What goes on after that, such as the orderly end of a set, must not fail because nobody hears of it.
"""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

_GONE = select.POLLERR | select.POLLHUP | select.POLLNVAL


@contextmanager
def whoever_listens() -> Iterator[None]:
    """Write to the standard streams; where a reader has gone, the rest of this is left out and nothing is raised."""
    try:
        yield
    except OSError:
        if not silence_gone():
            raise


def open_closed() -> None:
    """Let a standard stream that we were started without (`>&-`) lead nowhere: Python has none then."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 - open until we end


def reader_gone() -> bool:
    """Whether nobody reads standard output or standard error any more."""
    return any(_is_gone(stream) for stream in (sys.stdout, sys.stderr))


def silence_gone() -> bool:
    """Let what is written to a stream without a reader go nowhere; returns whether there was one."""
    gone = [stream for stream in (sys.stdout, sys.stderr) if _is_gone(stream)]
    for stream in gone:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())  # so that what is still in its buffer finds a place, too
        os.close(nowhere)
    return bool(gone)


def _is_gone(stream: TextIO) -> bool:
    try:
        poll = select.poll()
        poll.register(stream.fileno(), 0)
        return any(events & _GONE for _, events in poll.poll(0))
    except (OSError, ValueError):  # no file behind it
        return False
