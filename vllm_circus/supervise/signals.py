"""Signals to circusd, from its first moment to its last.

SIGTERM, SIGINT and SIGQUIT ask for the end; asking again changes nothing. SIGHUP is ignored, and the log says so: to
circus it means "reload", which would start second engines beside the first ones.

Rule: a handler only sets a flag or hands over to the loop. It runs between two arbitrary instructions of the program.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

_LOG = logging.getLogger(__name__)

_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
_IGNORED = (signal.SIGHUP,)


class Signals:
    """Handlers of this process while the context lasts. Only the main thread may enter it."""

    def __init__(self) -> None:
        self.end_asked = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end: Callable[[], object] | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Signals:
        for signum in (*_ENDING, *_IGNORED):
            self._before[signum] = signal.signal(signum, self._take)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def hand_over(self, end: Callable[[], object]) -> None:
        """From now on call `end` in the running loop when the end is asked for; at once if it was asked for before."""
        self._loop, self._end = asyncio.get_running_loop(), end
        if self.end_asked:
            end()

    def release(self) -> None:
        """The loop is about to close: only set the flag from now on."""
        self._loop = self._end = None

    def _take(self, number: int, _frame: FrameType | None) -> None:
        signum = signal.Signals(number)
        if signum in _ENDING:
            self.end_asked = True
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._act, signum)

    def _act(self, signum: signal.Signals) -> None:
        if signum in _IGNORED:
            _LOG.warning("%s ignored: a changed models file is applied by `vllm-circus down` and `up`", signum.name)
        else:
            _LOG.info("%s: stopping", signum.name)
            if self._end is not None:
                self._end()
