"""The terminal as a screen: what was there before is there again afterwards, however it ends.

`with Terminal() as terminal` switches to the alternate screen, hides the cursor and reads single keys; leaving the
context undoes that, after an error as well. Signals do nothing but wake the loop, which then asks `heed`: so nothing
is interrupted in the middle of a line. SIGTERM, SIGHUP and SIGQUIT undo everything and are then sent again to
whoever handled them before; SIGTSTP gives the terminal back until SIGCONT. SIGINT is KeyboardInterrupt, from `heed`.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import termios
import threading
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any

from vllm_circus.screens.canvas import encoded, painted
from vllm_circus.screens.keys import ESCAPE_AFTER, Keys
from vllm_circus.view.table import Line

_ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J"  # alternate screen, no cursor, no wrapping, empty: xterm's ctlseqs
_LEAVE = "\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l"
_ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_HEEDED = (*_ENDING, signal.SIGINT, signal.SIGTSTP, signal.SIGCONT, signal.SIGWINCH)
_READ = 4096
_USUAL = (80, 24)


def is_capable(*, plain: bool = False) -> bool:
    """Whether standard input and output are a terminal that a screen can be drawn on, and that is wanted."""
    return (
        not plain
        and os.environ.get("TERM", "dumb") not in {"", "dumb", "unknown"}
        and sys.stdin.isatty()
        and sys.stdout.isatty()
    )


class Terminal:
    """The terminal behind standard input and output, for as long as the context lasts."""

    def __init__(self) -> None:
        self._in, self._out = sys.stdin.fileno(), sys.stdout.fileno()
        self._colour = not os.environ.get("NO_COLOR")
        self._encoding = sys.stdout.encoding or "ascii"
        self._keys = Keys()
        self._shown: list[str] = []
        self._came: list[int] = []
        self._before: dict[int, Any] = {}
        self._fresh = True
        self._wake, self._waker = socket.socketpair()
        self._former_wakeup = -1

    @property
    def sources(self) -> tuple[int, int]:
        """Descriptors to wait on: keys, and signals."""
        return self._in, self._wake.fileno()

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines, at least one of each."""
        try:
            width, height = os.get_terminal_size(self._out)
        except OSError:
            return _USUAL
        return (width, height) if width > 0 and height > 0 else _USUAL

    def __enter__(self) -> Terminal:
        sys.stdout.flush()
        self._settings = termios.tcgetattr(self._in)
        self._catch()
        try:
            self._begin()
        except BaseException:
            self._restore()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def read(self) -> list[str]:
        """The keys that were pressed; nothing where none was. Raises BrokenPipeError where the terminal is gone."""
        pressed: list[str] = []
        while self._readable(ESCAPE_AFTER if self._keys.waits else 0.0):
            try:
                data = os.read(self._in, _READ)
            except OSError:
                data = b""
            if not data:
                raise BrokenPipeError
            pressed += self._keys.feed(data)
        return [*pressed, *self._keys.idle()]

    def draw(self, lines: Sequence[Line]) -> None:
        """Show these lines; only those that differ from what is there are written.

        Raises BrokenPipeError where the terminal is gone.
        """
        if self._fresh:
            self._shown = []
        parts = ["\x1b[0m\x1b[2J"] if self._fresh else []
        texts = [painted(line, colour=self._colour) for line in lines]
        for row, text in enumerate(texts):
            if row >= len(self._shown) or self._shown[row] != text:
                parts.append(f"\x1b[{row + 1};1H\x1b[2K{text}")
        self._shown, self._fresh = texts, False
        if parts:
            self._write("".join(parts))

    def heed(self) -> bool:
        """Do what the signals ask that came; True where the screen may be another now.

        Raises KeyboardInterrupt for SIGINT.
        """
        with suppress(BlockingIOError):
            while self._wake.recv(_READ):
                pass
        came, self._came = self._came, []
        for number in came:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            if number in _ENDING:
                self._restore()
                os.kill(os.getpid(), number)
                raise KeyboardInterrupt  # whoever handled it went on
            if number == signal.SIGTSTP:
                self._suspend()
            if number == signal.SIGCONT:  # whoever had the terminal meanwhile may have set it otherwise
                self._begin()
        self._fresh = self._fresh or bool(came)
        return bool(came)

    def redraw(self) -> None:
        """Write everything anew with the next picture: something else wrote to the terminal."""
        self._fresh = True

    def _readable(self, seconds: float) -> bool:
        return bool(select.select([self._in], [], [], seconds)[0])

    def _catch(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        for end in (self._wake, self._waker):
            end.setblocking(False)
        self._former_wakeup = signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        for number in _HEEDED:
            self._before[number] = signal.signal(number, self._note)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._came.append(number)

    def _begin(self) -> None:
        settings = termios.tcgetattr(self._in)
        settings[3] &= ~(termios.ECHO | termios.ICANON | termios.IEXTEN)  # local modes: termios(3)
        settings[6][termios.VMIN], settings[6][termios.VTIME] = 1, 0
        termios.tcsetattr(self._in, termios.TCSADRAIN, settings)
        self._write(_ENTER)
        self._fresh = True

    def _end(self) -> None:
        with suppress(termios.error):  # where the terminal is gone there is nothing to restore
            termios.tcsetattr(self._in, termios.TCSADRAIN, self._settings)
        with suppress(OSError):
            self._write(_LEAVE)

    def _restore(self) -> None:
        """Undo everything, once."""
        self._end()
        if self._before:
            signal.set_wakeup_fd(self._former_wakeup)
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before = {}
        self._wake.close()
        self._waker.close()

    def _suspend(self) -> None:
        """Give the terminal back and stop, as Ctrl-Z asks; go on when somebody continues us."""
        self._end()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, self._note)
        self._begin()

    def _write(self, text: str) -> None:
        data = encoded(text, self._encoding)
        try:
            while data:
                data = data[os.write(self._out, data) :]
        except OSError as error:
            raise BrokenPipeError from error
