"""The stats plugin: sums up what the proxy workers count, reads the GPUs, tells both once a second.

The sums are written down every few seconds and at the end. A successor goes on from there: workers that live tell
their whole counts again, so nothing is lost but what a worker counted that died in between.
"""

from __future__ import annotations

import logging
import os
import time

from vllm_circus.bus.inbox import Puller
from vllm_circus.bus.messages import HEARTBEAT, TOPIC_COUNTS, CountsMessage, WorkerMessage, WorkerState
from vllm_circus.bus.publish import Publisher
from vllm_circus.bus.rates import FirstTokens, Rates
from vllm_circus.bus.totals import Totals, bury, dump_totals, load_totals, model_sums, take, unrouted_sums
from vllm_circus.files import write_atomic
from vllm_circus.supervise.proc import read_process

from .base import BEAT, Plugin
from .gpus import GpuWatch

log = logging.getLogger(__name__)

_SAVE_EVERY = 5.0
_GPUS_EVERY = 2.0


class StatsPlugin(Plugin):
    """See the module. circusd starts it from `[plugin:stats]`."""

    name = "stats"

    def open(self) -> None:
        """Take the sockets, and what was counted so far."""
        instance = self.plan.instance
        self._file = instance.state_dir / "stats.json"
        self._totals = self._recall()
        self._births: dict[str, int] = {}
        self._rates = Rates()
        self._first_tokens = FirstTokens()
        self._gpus = GpuWatch()
        self._dirty = False
        now = time.monotonic()
        self._next_gpus, self._next_save, self._next_note = now, now + _SAVE_EVERY, now
        self._next_message = now
        self._publisher = Publisher(instance.stats_bus)
        self._inbox = Puller(instance.stats_inbox, self._take)

    def beat(self) -> None:
        """Whatever is due."""
        now = time.monotonic()
        if now >= self._next_gpus:
            self._next_gpus = now + _GPUS_EVERY
            self._gpus.begin()
        if now >= self._next_note:
            self._next_note = now + HEARTBEAT
            self._totals = bury(self._totals, self._gone())
            sums = model_sums(self._totals)
            self._rates.note(now, sums)
            self._first_tokens.note(now, sums)
        if now >= self._next_message - BEAT / 2:
            self._publish()
        if now >= self._next_save:
            self._next_save = now + _SAVE_EVERY
            self._save()
        if not self._publisher.held:
            log.error("somebody else took our address over: leaving")
            self.leave()

    def close(self) -> None:
        """Save, and leave the sockets."""
        self._save()
        self._inbox.close()
        self._publisher.close()

    def _take(self, message: WorkerMessage) -> None:
        known = self._totals.workers.get(message.worker)
        self._totals = take(self._totals, message, time.time())
        self._dirty = True
        if message.worker not in self._births and (process := read_process(message.pid)) is not None:
            self._births[message.worker] = process.started
        heard_news = known is None or known.message.sequence != message.sequence
        if heard_news or message.leaving:
            self._publish()  # somebody may wait for this to end an engine

    def _publish(self) -> None:
        self._next_message = time.monotonic() + HEARTBEAT
        self._publisher.publish(TOPIC_COUNTS, self._message())

    def _message(self) -> CountsMessage:
        alive = (worker for worker in self._totals.workers.values() if worker.alive)
        return CountsMessage(
            sent_at=time.time(),
            pid=os.getpid(),
            models=model_sums(self._totals),
            unrouted=unrouted_sums(self._totals),
            request_rate=self._rates.requests(),
            token_rate=self._rates.tokens(),
            workers=tuple(
                WorkerState(each.message.pid, each.message.sequence, each.message.connections, each.seen_at)
                for each in alive
            ),
            gpus=self._gpus.gpus,
            first_token=self._first_tokens.recent(),
        )

    def _gone(self) -> frozenset[str]:
        """Workers whose process is gone, or whose number belongs to another process by now."""
        return frozenset(
            name
            for name, worker in self._totals.workers.items()
            if worker.alive and not self._lives(name, worker.message.pid)
        )

    def _lives(self, name: str, pid: int) -> bool:
        process = read_process(pid)
        return process is not None and process.alive and self._births.get(name) in {None, process.started}

    def _recall(self) -> Totals:
        try:
            totals = load_totals(self._file.read_bytes())
        except FileNotFoundError:
            return Totals()
        except (OSError, ValueError) as error:
            log.warning("earlier counts cannot be read, counting anew: %s", str(error).split("\n", 1)[0])
            return Totals()
        return totals

    def _save(self) -> None:
        """Write the sums down. Where that fails it is tried again later: they are still here."""
        if not self._dirty:
            return
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(self._file, dump_totals(self._totals), mode=0o600)
        except OSError as error:
            log.warning("the counts cannot be written down: %s", error)
        else:
            self._dirty = False
