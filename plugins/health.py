"""The health plugin: keeps every model's life, probes the engines, starts and restarts them, tells the states.

It decides nothing itself: `lifecycle` does, `keeper` feeds it, `hands` carries out. This module brings them together
with the outside: circus's events, probes, logs, operators' commands, the workers' counters, and a file that lets a
successor go on where this process was.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from typing import Any

from vllm_circus.bus.command import CommandServer
from vllm_circus.bus.messages import (
    HEARTBEAT,
    TOPIC_COUNTS,
    TOPIC_MODELS,
    CommandMessage,
    CountsMessage,
    ReplyMessage,
)
from vllm_circus.bus.publish import Publisher
from vllm_circus.bus.subscribe import Subscriber
from vllm_circus.errors import CircusError
from vllm_circus.files import write_atomic
from vllm_circus.lifecycle import events as e
from vllm_circus.lifecycle.causes import explain_exit
from vllm_circus.lifecycle.events import Action, Event, Moment
from vllm_circus.lifecycle.memory import Memory, dump_memory, load_memory
from vllm_circus.lifecycle.scheduler import most_starts
from vllm_circus.lifecycle.states import State
from vllm_circus.plan.types import ModelPlan
from vllm_circus.supervise.client import AsyncClient

from . import processes
from .base import BEAT, Plugin
from .drains import DrainWatch
from .gpus import GpuWatch
from .hands import Circus, Hands
from .keeper import Keeper, Room
from .logtail import LogTail
from .probes import probe

log = logging.getLogger(__name__)

_PROBED = frozenset({State.LOADING, State.READY, State.UNHEALTHY})
#: Seconds without a beat after which silence was ours.
_AWAY = 3.0
#: Seconds between probes of a model that loads, at most: mostly its port is not even open.
_LOADING_INTERVAL = 0.5
#: Seconds that circus gets to tell an exit code before a process that is gone is taken as gone without.
_REAP_PATIENCE = 2.0
#: Seconds between questions to a circus that does not answer.
_ASK_AGAIN = 0.3
#: Seconds until writing down is tried again.
_SAVE_AGAIN = 5.0
_GPU_PATIENCE = 5.0


def read_clock() -> Moment:
    """The time."""
    return Moment(time.monotonic(), time.time())


class HealthPlugin(Plugin):
    """See the module. circusd starts it from `[plugin:health]`."""

    name = "health"

    def open(self) -> None:
        """Take the sockets and read the memory; the lives begin when circus has told what runs."""
        instance = self.plan.instance
        self._file = instance.state_dir / "health.json"
        self._owner = processes.identity(os.getppid())
        self._client = AsyncClient(instance.control)
        self._circus: Circus = self._client  # what is used of it
        self._publisher = Publisher(instance.health_bus)
        self._commands = CommandServer(instance.commands, self._command)
        self._drains = DrainWatch()
        self._subscriber = Subscriber(instance.stats_bus, [TOPIC_COUNTS], self._counted)
        self._tails = {model.name: LogTail(instance.log(model.name)) for model in self.plan.models}
        self._names = {model.watcher: model.name for model in self.plan.models}
        self._probed: dict[str, float] = {}
        self._missing: dict[int, float] = {}
        self._unexplained: set[int] = set()
        self._last_beat = time.monotonic()
        self._published = (0.0, -1)
        self._saved = self._saved_sequence = -1
        self._save_after = 0.0
        self._hands = Hands(self._circus, self._feed)
        self._keeper: Keeper | None = None
        self._early: list[tuple[str, str, Any]] = []
        self.spawn("the beginning", self._take_up())

    async def _take_up(self) -> None:
        """Ask circus what runs, then go on (same circusd) or begin (a new one)."""
        memory = self._recall()
        room = Room(most_starts(len(os.sched_getaffinity(0))), await _machine_has_gpus())
        running = await self._what_runs()
        fresh = memory.owner != self._owner
        known = Memory(sequence=memory.sequence, loads=memory.loads) if fresh else memory
        self._keeper = Keeper(self.plan, known, room, self._perform, read_clock)
        log.info("%s, %d at a time", "a new set" if fresh else "going on where the last one was", room.starts)
        for name in self._keeper.lives:
            self._keeper.take_up(name, running.get(name))
        if fresh:
            self._keeper.begin()
        for watcher, topic, message in self._early:
            self.on_event(watcher, topic, message)
        self._early.clear()
        self._publish_changes()

    async def _what_runs(self) -> dict[str, int]:
        """The living process of each model, as circus knows it; asked until it answers."""
        said = ""
        while True:
            try:
                watchers = [watcher for watcher in await self._circus.status() if watcher in self._names]
                found = {self._names[watcher]: await self._circus.pids(watcher) for watcher in watchers}
            except CircusError as error:
                if str(error) != said:
                    said = str(error)
                    log.warning("circus does not tell what runs: %s", said)
                await asyncio.sleep(_ASK_AGAIN)
                continue
            return {name: pid for name, pids in found.items() for pid in pids if processes.is_alive(pid)}

    def _recall(self) -> Memory:
        try:
            return load_memory(self._file.read_bytes())
        except FileNotFoundError:
            return Memory()
        except (OSError, ValueError) as error:
            log.warning("what was written down cannot be read, beginning anew: %s", str(error).split("\n", 1)[0])
            return Memory()

    # What comes in.

    def on_event(self, watcher: str, topic: str, message: Any) -> None:
        """circus tells what happened to a watcher."""
        name = self._names.get(watcher)
        if name is None:
            return
        if self._keeper is None:
            self._early.append((watcher, topic, message))
            return
        pid = message.get("process_pid")
        if topic == "spawn":
            self._feed(name, e.Spawned(int(pid)))
        elif topic == "kill":
            self._feed(name, e.Withdrawn(int(pid)))
        elif topic == "reap":
            self._ended(name, int(pid), message.get("exit_code"))

    def _perform(self, model: ModelPlan, action: Action) -> None:
        self.spawn(f"{model.name}: {type(action).__name__}", self._hands.perform(model, action))

    def _feed(self, name: str, event: Event) -> None:
        if self._keeper is None:
            return
        if isinstance(event, e.Spawned) and self._keeper.lives[name].pid != event.pid:
            self._tails[name].mark()
        self._keeper.feed(name, event)
        self._publish_changes()

    def _ended(self, name: str, pid: int, code: int | None) -> None:
        """It is gone; `code` is None where circus did not tell (yet)."""
        self._missing.pop(pid, None)
        cause = explain_exit(code, self._tails[name].last_lines())
        if pid in self._unexplained:
            self._unexplained.discard(pid)
            self._feed(name, e.Explained(pid, cause))
            return
        if code is None:
            self._unexplained.add(pid)
        self._feed(name, e.Exited(pid, cause))

    def _command(self, command: CommandMessage) -> ReplyMessage:
        if self._keeper is None:
            return ReplyMessage((), "the health plugin is just starting: try again")
        reply = self._keeper.command(command)
        self._publish_changes()
        return reply

    def _counted(self, message: CountsMessage) -> None:
        self._drains.hear(message, time.monotonic())
        self._watch_drains()

    # What goes on.

    def beat(self) -> None:
        """Look at everything that tells nothing by itself."""
        now = time.monotonic()
        away, self._last_beat = now - self._last_beat > _AWAY, now
        if self._keeper is None:
            return
        if away:
            log.warning("was away for more than %g s: earlier silence of engines does not count", _AWAY)
            self._keeper.resumed()
        for name, life in self._keeper.lives.items():
            with self.guarded(f"watching {name}"):
                self._watch(name, life.state, life.pid, now)
        self._watch_drains()
        self._keeper.tick()
        self._publish_changes()
        self._save()
        if not self._publisher.held:
            log.error("somebody else took our address over: leaving")
            self.leave()

    def _watch(self, name: str, state: State, pid: int | None, now: float) -> None:
        if pid is None or self._keeper is None:
            return
        if not processes.is_alive(pid):
            self._notice_missing(name, pid, now)
            return
        if state is State.LOADING and (phase := self._tails[name].phase()):
            self._feed(name, e.PhaseSeen(phase))
        model = self._keeper.model(name)
        interval = min(model.probe.interval, _LOADING_INTERVAL) if state is State.LOADING else model.probe.interval
        if state in _PROBED and now - self._probed.get(name, 0.0) >= interval - BEAT / 2:
            self._probed[name] = now
            self.spawn(f"probing {name}", self._probe(model, now, with_names=state is not State.READY))

    def _notice_missing(self, name: str, pid: int, now: float) -> None:
        """It is gone: have circus look now, instead of in up to a second, and tell the exit code.

        Where it does not, we go on without.
        """
        if pid not in self._missing and self._keeper is not None:
            self._missing[pid] = now
            self.spawn(f"{name}: settling", self._settle(self._keeper.model(name)))
        elif now - self._missing[pid] > _REAP_PATIENCE:
            self._ended(name, pid, None)

    async def _settle(self, model: ModelPlan) -> None:
        try:
            await self._hands.settle(model)
        except CircusError as error:  # it has something else to do, or is just ending the set
            log.warning("%s: circus does not look whether it is gone: %s", model.name, error)

    async def _probe(self, model: ModelPlan, asked: float, *, with_names: bool) -> None:
        names = with_names and model.check_names
        self._feed(model.name, await probe(model, asked=asked, secrets=self.plan.instance.secrets, with_names=names))

    def _watch_drains(self) -> None:
        if self._keeper is None:
            return
        draining = [name for name, life in self._keeper.lives.items() if life.state is State.DRAINING]
        for name in draining:
            sequence = self._keeper.turned.get(name, self._keeper.sequence)
            if self._drains.is_drained(name, sequence, time.monotonic()):
                self._feed(name, e.Drained())

    # What goes out.

    def _publish_changes(self) -> None:
        """At once where something changed, else with the heartbeat."""
        if self._keeper is None:
            return
        if self._saved_sequence != self._keeper.sequence:
            self._save()  # before it is told: a successor is to know every state that anybody heard of
        at, changes = self._published
        now = time.monotonic()
        if changes != self._keeper.changes or now - at >= HEARTBEAT - BEAT:
            self._publisher.publish(TOPIC_MODELS, self._keeper.message(os.getpid()))
            self._published = (now, self._keeper.changes)

    def _save(self) -> None:
        """Write down what changed. Where that fails it is tried again later: serving goes on meanwhile."""
        if self._keeper is None or self._saved == self._keeper.changes or time.monotonic() < self._save_after:
            return
        changes, sequence = self._keeper.changes, self._keeper.sequence
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(self._file, dump_memory(self._keeper.memory(self._owner)), mode=0o600)
        except OSError as error:
            log.warning("the states cannot be written down: %s", error)
            self._save_after = time.monotonic() + _SAVE_AGAIN
        else:
            self._saved, self._saved_sequence = changes, sequence

    def close(self) -> None:
        """Save, and leave the sockets; engines go on."""
        self._save_after = 0.0
        self._save()
        self._client.close()
        self._commands.close()
        self._subscriber.close()
        self._publisher.close()


async def _machine_has_gpus() -> bool:
    """Whether there are GPUs; a driver that hangs is taken as one that has some."""
    watch = GpuWatch()
    watch.begin()
    try:
        await asyncio.wait_for(watch.known.wait(), _GPU_PATIENCE)
    except TimeoutError:
        return True
    return bool(watch.gpus)
