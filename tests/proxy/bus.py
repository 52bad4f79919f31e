"""The plugins' ends of the bus, played by the test."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from tests.proxy.conftest import Worker
from tests.proxy.scripted import until
from vllm_circus.bus.command import CommandServer
from vllm_circus.bus.inbox import Puller
from vllm_circus.bus.messages import (
    TOPIC_MODELS,
    CommandMessage,
    ModelsMessage,
    ModelState,
    ReplyMessage,
    WorkerMessage,
)
from vllm_circus.bus.publish import Publisher
from vllm_circus.paths import Instance

T = TypeVar("T")


class Bus:
    """The plugins' ends of the bus, on a loop of their own."""

    def __init__(self, instance: Instance) -> None:
        self.told: list[WorkerMessage] = []
        self.wished: list[CommandMessage] = []
        self._instance = instance
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._publisher = self._call(lambda: Publisher(instance.health_bus))
        self._puller = self._call(lambda: Puller(instance.stats_inbox, self.told.append))
        self._sequence = 0
        self._commands = self._call(lambda: CommandServer(instance.commands, self._take))

    def _call(self, make: Callable[[], T]) -> T:
        async def run() -> T:
            return make()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(5)

    def _take(self, command: CommandMessage) -> ReplyMessage:
        self.wished.append(command)
        return ReplyMessage(command.models)

    def restart_commands(self) -> None:
        """The health plugin's inbox ends, and comes again."""
        self._call(self._commands.close)
        self._commands = self._call(lambda: CommandServer(self._instance.commands, self._take))

    def says(self, *states: ModelState, plan: str = "") -> int:
        """Publish these states; returns their sequence."""
        self._sequence += 1
        message = ModelsMessage(time.time(), 1, self._sequence, states, plan)
        self._call(lambda: self._publisher.publish(TOPIC_MODELS, message))
        return self._sequence

    def acted_on(self, sequence: int) -> bool:
        return until(lambda: any(message.sequence >= sequence for message in self.told))

    def close(self) -> None:
        self._call(self._publisher.close)
        self._call(self._puller.close)
        self._call(self._commands.close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()


@contextmanager
def bus_of(worker: Worker) -> Iterator[Bus]:
    bus = Bus(worker.plan.instance)
    try:
        yield bus
    finally:
        bus.close()
