"""Signals while a question stands on the terminal.

Rules: SIGTERM, SIGHUP and SIGQUIT give the terminal back as it was, and end the program then as they would have;
SIGTSTP and Ctrl-Z do so until somebody continues it, and the question stands there again. What is ignored stays so.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import threading
from typing import Any

from prompt_toolkit.application import Application, run_in_terminal

_ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class Ended(BaseException):
    """A signal came that ends the program, and the terminal is as it was."""


def run(app: Application[Any]) -> Any:
    """The answer of a question. Ends the program where a signal says so.

    Raises what its keys raise, and KeyboardInterrupt where the terminal has gone.
    """
    if threading.current_thread() is not threading.main_thread():
        return app.run()
    before = {number: signal.getsignal(number) for number in (*_ENDING, signal.SIGTSTP)}
    came: list[int] = []
    try:
        return app.run(pre_run=lambda: _heed(app, came))
    except Ended:
        pass
    except OSError as error:
        if error.errno != errno.EIO:  # what a terminal says that has hung up
            raise
    finally:
        _restore(before)
    if came:
        os.kill(os.getpid(), came[0])
    raise KeyboardInterrupt  # also where whoever handled the signal went on


def suspend(_event: object = None) -> None:
    """Stop until somebody continues us: the terminal is the shell's meanwhile."""
    run_in_terminal(_stop)


def _heed(app: Application[Any], came: list[int]) -> None:
    loop = asyncio.get_running_loop()
    for number in _ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, _end, app, number, came)
    if signal.getsignal(signal.SIGTSTP) is not signal.SIG_IGN:
        loop.add_signal_handler(signal.SIGTSTP, suspend)


def _end(app: Application[Any], number: int, came: list[int]) -> None:
    came.append(number)
    if app.future is not None and not app.future.done():
        app.exit(exception=Ended())


def _stop() -> None:
    """The whole group stops, since others in it may read the terminal as well."""
    handler = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
    os.kill(0, signal.SIGTSTP)
    signal.signal(signal.SIGTSTP, handler)


def _restore(before: dict[signal.Signals, Any]) -> None:
    for number, handler in before.items():
        signal.signal(number, signal.SIG_DFL if handler is None else handler)
