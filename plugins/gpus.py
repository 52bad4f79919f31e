"""The GPUs, asked for in a thread of its own each time: NVML may block for seconds, or for ever.

The thread is a daemon: one that never comes back holds up neither the plugin nor its end, and no second one is sent
after it; what was seen before it is soon not told any more.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from vllm_circus.gpu import Gpu, NoDriver, list_gpus

log = logging.getLogger(__name__)

#: Seconds after which a look counts as one that hangs.
_HANGS = 30.0


class GpuWatch:
    """The last picture of the GPUs that was had."""

    def __init__(self, look: Callable[[], tuple[Gpu, ...]] = list_gpus) -> None:
        self._look = look
        self._looking = False
        self._began = 0.0
        self._said = ""
        self.gpus: tuple[Gpu, ...] = ()
        """As of the last look that ended; empty where there is no driver, and while it hangs."""
        self.known = asyncio.Event()
        """Set once the first look has ended."""

    def begin(self) -> None:
        """Look, unless the last look has not ended yet. The loop must run."""
        if self._looking:
            if time.monotonic() - self._began > _HANGS:
                self._tell((), "the driver does not answer any more")
        else:
            self._looking, self._began = True, time.monotonic()
            loop = asyncio.get_running_loop()
            threading.Thread(target=self._in_thread, args=(loop,), name="gpus", daemon=True).start()

    def _in_thread(self, loop: asyncio.AbstractEventLoop) -> None:
        gpus: tuple[Gpu, ...] = ()
        said = ""
        try:
            gpus = self._look()
        except NoDriver as error:
            said = str(error)
        except Exception as error:  # a thread has nobody above it who could be told
            said = f"the GPUs cannot be read: {error!r}"
        with suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(self._done, gpus, said)

    def _done(self, gpus: tuple[Gpu, ...], said: str) -> None:
        self._looking = False
        self.known.set()
        self._tell(gpus, said)

    def _tell(self, gpus: tuple[Gpu, ...], said: str) -> None:
        self.gpus = gpus
        if said != self._said:
            log.info("GPUs: %s", said or f"{len(gpus)} found")
            self._said = said
