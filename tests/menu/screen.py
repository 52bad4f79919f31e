"""A program on a terminal of 80 columns and 24 lines, and what a person sees there."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pexpect
import pyte

#: Seconds for a screen to come; the machine may be busy with other things.
PATIENCE = 60.0

UP, DOWN, ENTER, ESCAPE, INTERRUPT, BACKSPACE = "\x1b[A", "\x1b[B", "\r", "\x1b", "\x03", "\x7f"
PASTE_BEGIN, PASTE_END = "\x1b[200~", "\x1b[201~"


@dataclass
class Screen:
    """A program and its terminal."""

    program: str
    arguments: Sequence[str]
    environ: Mapping[str, str]
    columns: int = 80
    rows: int = 24
    child: Any = None
    raw: str = field(default="", repr=False)

    def __enter__(self) -> Screen:
        env = {**self.environ, "TERM": "xterm-256color"}
        for name in ("COLUMNS", "LINES"):
            env.pop(name, None)
        self.child = pexpect.spawn(
            self.program,
            list(self.arguments),
            env=env,
            dimensions=(self.rows, self.columns),
            encoding="utf-8",
            timeout=PATIENCE,
        )
        self._screen = pyte.HistoryScreen(self.columns, self.rows, history=2000)
        self._stream = pyte.Stream(self._screen)
        return self

    def __exit__(self, *_: object) -> None:
        self.child.close(force=True)

    @property
    def text(self) -> str:
        """What stands on the screen, without the blanks at the ends of lines."""
        return "\n".join(line.rstrip() for line in self._screen.display).rstrip()

    def await_text(self, *wanted: str, within: float = PATIENCE) -> str:
        """Read until all of it stands on the screen; returns the screen. Fails with the screen as it is then."""
        deadline = time.monotonic() + within
        while not all(one in self.text for one in wanted):
            assert time.monotonic() < deadline, f"{wanted} did not come:\n{self.text}"
            self._read(0.2)
        return self.text

    def await_raw(self, times: int, wanted: str, within: float = PATIENCE) -> None:
        """Read until a text was written so many times since the beginning."""
        deadline = time.monotonic() + within
        while self.raw.count(wanted) < times:
            assert time.monotonic() < deadline, f"{wanted!r} was not written {times} times:\n{self.text}"
            self._read(0.1)

    def await_end(self, within: float = PATIENCE) -> int:
        """Read until the program has ended; returns its exit code."""
        deadline = time.monotonic() + within
        while self._read(0.2):
            assert time.monotonic() < deadline, f"it did not end:\n{self.text}"
        self.child.close()
        code: int = self.child.exitstatus
        return code

    def send(self, keys: str) -> None:
        """Press keys."""
        self.child.send(keys)

    def answer(self, question: str, *keys: str) -> str:
        """Wait for a question that begins so, then press keys, those of a list one by one; returns the screen before.

        A key that changes what is shown is waited for, since what is typed ahead between two questions is echoed.
        """
        shown = self.await_question(question)
        for number, key in enumerate(keys):
            if number:
                self._read(0.1)
            self.send(key)
        return shown

    def await_question(self, question: str, within: float = PATIENCE) -> str:
        """Read until that is what is asked now; returns the screen. Fails with the screen as it is then."""
        deadline = time.monotonic() + within
        while not self.question.startswith(question):
            assert time.monotonic() < deadline, f"{question!r} was not asked:\n{self.text}"
            self._read(0.1)
        return self.text

    def answer_pause(self, wanted: str) -> str:
        """Wait for a text and for the pause below it, then go on; returns the screen before."""
        shown = self.await_text(wanted, "any key goes on")
        self.send(" ")
        return shown

    @property
    def question(self) -> str:
        """What is asked now; empty where nothing is, as between two questions."""
        lines = self.text.split("\n")
        at = max((number for number, line in enumerate(lines) if line.startswith("? ")), default=len(lines))
        asked = lines[at].removeprefix("? ") if at < len(lines) else ""
        below = any("Enter: " in line for line in lines[at + 1 :])
        yes_or_no = "".join(lines[at:]).endswith(("(Y/n)", "(y/N)"))  # which a narrow terminal breaks anywhere
        return asked if below or yes_or_no else ""

    def _read(self, seconds: float) -> bool:
        try:
            data = self.child.read_nonblocking(65536, timeout=seconds)
        except pexpect.TIMEOUT:
            return True
        except pexpect.EOF:
            return False
        self.raw += data
        self._stream.feed(data)
        return True
