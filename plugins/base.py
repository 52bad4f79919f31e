"""What every plugin is: a process that circusd starts, with a log of its own, a heartbeat, and an end.

What circus does not do for a plugin is done here:

- its output goes to /dev/null, so it writes a log file in the format of all our logs;
- a callback that raises would leave it deaf while circus calls it active, so every callback runs inside `guarded`;
- SIGTERM would end it without a word, so it is handled on the loop, and the subclass gets to save its state;
- circus's word about it is worth nothing, so it publishes at least every `HEARTBEAT` seconds, whatever happens.

A subclass opens its sockets in `open`, which runs on the running loop; `beat` is called every `BEAT` seconds.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import traceback
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from circus.plugins import CircusPlugin

from vllm_circus.logline import Channel
from vllm_circus.plan.types import Plan, load_plan
from vllm_circus.supervise.logfile import LogFile

log = logging.getLogger(__name__)

#: Seconds between two beats: how fast a death is noticed and a deadline kept.
BEAT = 0.25
#: Seconds that tasks get to be broken off.
_LEAVE_WITHIN = 1.0
_LOG_BYTES = 8 << 20
_LOG_BACKUPS = 2


class LogHandler(logging.Handler):
    """Writes records as lines of our log format: warnings and worse on the error channel."""

    def __init__(self, path: Path) -> None:
        super().__init__(logging.INFO)
        self._file = LogFile(path, max_bytes=_LOG_BYTES, backups=_LOG_BACKUPS)

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, a traceback as lines of its own. Never raises."""
        channel: Channel = "E" if record.levelno >= logging.WARNING else "O"
        try:
            lines = f"{record.levelname} {record.getMessage()}".splitlines()
            if record.exc_info:
                lines += "".join(traceback.format_exception(*record.exc_info)).splitlines()
            for line in lines:
                self._file.write(channel, line)
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()


class Plugin(CircusPlugin):  # type: ignore[misc]  # circus has no types
    """A plugin of ours; its one option, `settings`, is the path of plan.json."""

    name = ""

    def __init__(self, *args: Any, **options: str) -> None:
        super().__init__(*args, **options)
        self.plan: Plan = load_plan(Path(options["settings"]).read_bytes())
        self.faults = 0
        """Callbacks that raised, since the beginning."""
        self._tasks: set[asyncio.Task[Any]] = set()
        self._leaving: asyncio.Task[None] | None = None
        self._handler: LogHandler | None = None
        self._parent = os.getppid()

    # What circus calls.

    def handle_init(self) -> None:
        """Set the log and the signals up; everything else waits for the loop to run."""
        self._handler = LogHandler(self.plan.instance.log(self.name))
        logging.basicConfig(level=logging.INFO, handlers=[self._handler], force=True)
        log.info("%s starts, pid %d", self.name, os.getpid())
        running = self.loop.asyncio_loop
        for signum in (signal.SIGTERM, signal.SIGINT):
            running.add_signal_handler(signum, self.leave)
        running.call_soon(self._begin)

    def handle_recv(self, data: tuple[bytes, bytes]) -> None:
        """An event of circusd's: hand it on, decoded."""
        with self.guarded("an event of circus"):
            watcher, topic, message = self.split_data(data)
            self.on_event(watcher, topic, self.load_message(message))

    def handle_stop(self) -> None:
        """The end: save and close."""
        with self.guarded("the end"):
            self.close()
        log.info("%s ends", self.name)

    # What subclasses fill in.

    def open(self) -> None:
        """Begin to work; the loop runs. What is raised here ends the plugin, and circus starts another one."""

    def beat(self) -> None:
        """Do what is to be done every `BEAT` seconds."""

    def on_event(self, watcher: str, topic: str, message: Any) -> None:
        """Something happened to a watcher (see circus's topics)."""

    def close(self) -> None:
        """Save and close."""

    # What subclasses use.

    def leave(self) -> None:
        """End the plugin: what is under way is broken off, then `close` is called."""
        if self._leaving is None:
            self._leaving = asyncio.get_running_loop().create_task(self._leave())

    async def _leave(self) -> None:
        """Nothing is begun any more (see `spawn`), so what is under way now is all that there is to end."""
        under_way = tuple(self._tasks)
        for task in under_way:
            task.cancel()
        if under_way:
            await asyncio.wait(under_way, timeout=_LEAVE_WITHIN)
        for name in sorted(task.get_name() for task in self._tasks):
            log.warning("%s is left undone", name)
        self.stop()

    def guarded(self, what: str) -> Guard:
        """A `with` block that no exception leaves: it is logged and counted."""
        return Guard(self, what)

    def spawn(self, what: str, work: Coroutine[Any, Any, Any]) -> None:
        """Run a coroutine beside the rest; what it raises is logged and counted. One that leaves begins nothing."""
        if self._leaving is not None:  # events of circus go on coming in while tasks are broken off
            work.close()
            return

        async def run() -> None:
            with self.guarded(what):
                await work

        task = asyncio.get_running_loop().create_task(run(), name=what)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _begin(self) -> None:
        try:
            self.open()
        except Exception:
            log.exception("%s cannot begin", self.name)
            self.leave()
            return
        self._repeat()

    def _repeat(self) -> None:
        """One beat now, and the next later: also when this one failed."""
        if self._leaving is not None:
            return
        self.loop.asyncio_loop.call_later(BEAT, self._repeat)
        if os.getppid() != self._parent:
            log.warning("circusd is gone: nothing can be started any more, but what is known is still told")
            self._parent = os.getppid()
        with self.guarded("a beat"):
            self.beat()


class Guard:
    """The error boundary around one callback."""

    def __init__(self, plugin: Plugin, what: str) -> None:
        self._plugin = plugin
        self._what = what

    def __enter__(self) -> None:
        """Enter the callback."""

    def __exit__(self, _kind: object, error: BaseException | None, _at: object) -> bool:
        """Swallow what a callback may raise; what ends a program goes on."""
        if not isinstance(error, Exception):
            return False
        self._plugin.faults += 1
        log.error("%s failed (%d so far)", self._what, self._plugin.faults, exc_info=error)
        return True
