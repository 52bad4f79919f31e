"""circusd's own log: the same format and rotation as every other log of the set, and a copy for people in front of it.

Warnings and worse stand on channel E. A traceback becomes as many lines as it has.
"""

from __future__ import annotations

import logging
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from vllm_circus.supervise.logfile import LogFile

if TYPE_CHECKING:
    from collections.abc import Iterator


class LogFileHandler(logging.Handler):
    """Writes records into a `LogFile`."""

    def __init__(self, file: LogFile) -> None:
        super().__init__()
        self._file = file

    def emit(self, record: logging.LogRecord) -> None:
        """One log line for each line of the record."""
        for line in self.format(record).splitlines():
            self._file.write("E" if record.levelno >= logging.WARNING else "O", line)

    def close(self) -> None:
        """Close the file with the handler."""
        self._file.close()
        super().close()


@contextmanager
def logging_to(path: Path, *, background: bool, max_bytes: int, backups: int) -> Iterator[None]:
    """Send everything that this process logs to `path`, and to standard error too unless `background`."""
    handlers: list[logging.Handler] = [LogFileHandler(LogFile(path, max_bytes=max_bytes, backups=backups))]
    if not background:
        handlers.append(logging.StreamHandler(sys.stderr))
    root = logging.getLogger()
    before = (root.handlers, root.level)
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    root.handlers = handlers
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.handlers = before[0]
        root.setLevel(before[1])
        for handler in handlers:
            handler.close()
