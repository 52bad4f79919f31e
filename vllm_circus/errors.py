"""The one base error of the program, and the few kinds that callers tell apart.

Every error that a person can see is a `CircusError`: its message says what is wrong and where, its hint what to do
next. The command line turns it into `exit_code`, the proxy into `http_status`. Anything else that reaches the top is
a bug.
"""

from __future__ import annotations

from dataclasses import dataclass


class CircusError(Exception):
    """Something a person should read.

    Attributes:
        hint: what to do next, one sentence or empty.
        exit_code: what the command exits with: 1 failed, 2 usage or configuration, 3 not running, 4 unknown model.
        http_status: what the proxy answers when this error ends a request.
    """

    exit_code = 1
    http_status = 500

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True, order=True)
class Fault:
    """One thing wrong in one place of the configuration.

    `line` counts from 1; 0 means the whole file. `where` is the path inside the document (`models[2].port`).
    `lack` is whether only this machine lacks something that another may have.
    """

    file: str
    line: int
    where: str
    message: str
    fix: str = ""
    lack: bool = False

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        what = f"{self.where}: {self.message}" if self.where else self.message
        return f"{place}: {what}" + (f" ({self.fix})" if self.fix else "")


class ConfigError(CircusError):
    """The configuration is wrong: carries every fault found, in file order."""

    exit_code = 2

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        self.faults = tuple(sorted(faults))
        super().__init__("\n".join(map(str, self.faults)))


class NotRunning(CircusError):
    """The instance, or the part of it that is needed, does not run or is not ready."""

    exit_code = 3
    http_status = 503


class UnknownModel(CircusError):
    """No model of that name is configured."""

    exit_code = 4
    http_status = 404
