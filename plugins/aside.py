"""Look at what may not answer: a driver, a network file system. Each look has a daemon thread of its own.

A thread that never comes back holds up neither the plugin nor its end.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


async def aside(what: str, work: Callable[[], T], patience: float) -> T:
    """What `work` returns or raises, done in a thread; TimeoutError after `patience` seconds (the thread goes on)."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def tell(result: T | None, error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]  # without an error it is a T

    def run() -> None:
        result, fault = None, None
        try:
            result = work()
        except BaseException as error:  # raised where it is waited for
            fault = error
        with suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(tell, result, fault)

    threading.Thread(target=run, name=what, daemon=True).start()
    return await asyncio.wait_for(done, patience)
