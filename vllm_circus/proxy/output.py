"""Lines to standard output, which circusd streams into the proxy's log.

Rules: a worker never waits for whoever reads its log. Lines are written together, a few times a second; when the
pipe is full they wait in bounded memory, and what does not fit is dropped and counted, and the count is written as
soon as something can be.
"""

from __future__ import annotations

import logging
import os

from vllm_circus.logline import clean

#: Bytes that may wait.
ROOM = 1 << 20
#: Lines of one kind of warning a second that are written.
_MOST_WARNINGS = 10


class Output:
    """Lines on their way to a descriptor."""

    def __init__(self, descriptor: int = 1) -> None:
        self._descriptor = descriptor
        self._waiting: list[bytes] = []
        self._size = 0
        self.lost = 0

    def line(self, text: str) -> None:
        """Add one line; control characters in it are spelled out."""
        data = clean(text).encode("utf-8", "backslashreplace") + b"\n"
        if self._size + len(data) > ROOM:
            self.lost += 1
            return
        self._waiting.append(data)
        self._size += len(data)

    def flush(self) -> None:
        """Write what can be written without waiting."""
        if not self._waiting:
            return
        if self.lost and self._size < ROOM // 2:
            self._waiting.append(b"%d lines were lost: the log was not read\n" % self.lost)
            self.lost = 0
        data = b"".join(self._waiting)
        written = self._write(data)
        left = data[written:]
        self._waiting = [left] if left else []
        self._size = len(left)

    def _write(self, data: bytes) -> int:
        """Bytes taken. The pipe may be shared, so its blocking mode is set for the write alone."""
        blocking = os.get_blocking(self._descriptor)
        try:
            if blocking:
                os.set_blocking(self._descriptor, False)
            return os.write(self._descriptor, data)
        except BlockingIOError:
            return 0
        except OSError:  # nobody reads it any more: there is no better place to say so
            return len(data)
        finally:
            if blocking:
                os.set_blocking(self._descriptor, True)


class Handler(logging.Handler):
    """Python's log records as such lines, at most a few a second of each origin."""

    def __init__(self, output: Output) -> None:
        super().__init__()
        self._output = output
        self._second = 0
        self._seen: dict[tuple[str, int], int] = {}
        self.setFormatter(logging.Formatter("%(levelname)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """See logging.Handler."""
        second = int(record.created)
        if second != self._second:
            self._tell_withheld()
            self._second, self._seen = second, {}
        origin = (record.pathname, record.lineno)
        count = self._seen[origin] = self._seen.get(origin, 0) + 1
        if count <= _MOST_WARNINGS:
            for part in self.format(record).splitlines():
                self._output.line(part)

    def _tell_withheld(self) -> None:
        withheld = sum(count - _MOST_WARNINGS for count in self._seen.values() if count > _MOST_WARNINGS)
        if withheld:
            self._output.line(f"WARNING {withheld} more lines like these were withheld")
