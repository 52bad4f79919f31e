"""The health plugin: keeps every model's life, probes the engines, starts and restarts them, tells the states.

It decides nothing itself: `lifecycle` does, `keeper` feeds it, `hands` carries out. This module brings them together
with the outside: circus's events, probes, logs, operators' commands, the workers' counters, and a file that lets a
successor go on where this process was.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from collections.abc import Iterator, Mapping
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
from vllm_circus.lifecycle.doctor.diagnosis import diagnose
from vllm_circus.lifecycle.events import Action, Event, Moment
from vllm_circus.lifecycle.life import Life
from vllm_circus.lifecycle.memory import Memory, dump_memory, load_memory
from vllm_circus.lifecycle.scheduler import most_starts
from vllm_circus.lifecycle.states import State
from vllm_circus.plan.types import ModelPlan, load_plan, model_of, watcher_of
from vllm_circus.supervise.client import AsyncClient
from vllm_circus.supervise.proc import every_process
from vllm_circus.supervise.stopped import StoppedWatch

from . import processes
from .base import BEAT, Plugin
from .exchange import Engine
from .gpus import GpuWatch
from .ground import Ground
from .hands import Circus, Hands
from .keeper import Keeper, Room
from .logtail import LogTail
from .lookout import Lookout
from .sleeper import is_sleeping
from .started import as_started

log = logging.getLogger(__name__)

#: Seconds without a beat after which silence was ours.
_AWAY = 3.0
#: Seconds that circus gets to tell an exit code before a process that is gone is taken as gone without.
_REAP_PATIENCE = 2.0
#: Seconds between questions to a circus that does not answer.
_ASK_AGAIN = 0.3
#: Seconds until writing down is tried again.
_SAVE_AGAIN = 5.0
_GPU_PATIENCE = 5.0
#: Seconds that engines get to say whether they sleep, when they are taken up.
_ASLEEP_PATIENCE = 2.0
#: Seconds between two looks for stopped processes: each reads a line of every process of the machine.
_LOOK_FOR_STOPPED = 2.0


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
        self._subscriber = Subscriber(instance.stats_bus, [TOPIC_COUNTS], self._counted)
        self._tails: dict[str, LogTail] = {}
        self._fitted: frozenset[str] = frozenset()
        self._missing: dict[int, float] = {}
        self._unexplained: set[int] = set()
        self._ooms: dict[str, int] = {}
        self._last_beat = self._looked = time.monotonic()
        self._stopped = StoppedWatch()
        self._published = (0.0, -1)
        self._saved = self._saved_sequence = -1
        self._save_after = 0.0
        self._hands = Hands(self._circus, Ground(instance), self._feed, instance.secrets)
        self._keeper: Keeper | None = None
        self._lookout: Lookout | None = None
        self._early: list[tuple[str, str, Any]] = []
        self.spawn("the beginning", self._take_up())

    async def _take_up(self) -> None:
        """Ask circus what runs, then go on (same circusd) or begin (a new one)."""
        memory = self._recall()
        room = Room(most_starts(len(os.sched_getaffinity(0))), await _machine_has_gpus())
        running = await self._what_runs()
        asleep = await self._who_sleeps(running, memory)
        fresh = memory.owner != self._owner
        known = Memory(sequence=memory.sequence, loads=memory.loads, wakes=memory.wakes) if fresh else memory
        self._keeper = Keeper(self.plan, known, room, self._perform, read_clock)
        log.info("%s, %d at a time", "a new set" if fresh else "going on where the last one was", room.starts)
        for name in self._keeper.lives:
            self._tail(name)  # what is written from now on tells why it died
            self._keeper.take_up(name, running.get(name))
        for name, event in asleep:
            self._keeper.feed(name, event)
        if fresh:
            self._keeper.begin()
        else:
            self._keeper.catch_up()
        for watcher, topic, message in self._early:
            self.on_event(watcher, topic, message)
        self._early.clear()
        self._publish_changes()
        self._lookout = Lookout(self._keeper, self._feed, self.spawn, self.plan.instance.secrets)
        self._fitted = frozenset(self._keeper.lives)
        if not fresh:  # circusd may have begun with another plan
            self._fit()

    async def _who_sleeps(self, running: Mapping[str, int], memory: Memory) -> Iterator[tuple[str, e.FoundAsleep]]:
        """Engines that say that they sleep: the memory may be lost, or could not be written down for a while."""
        models = [as_started(model, memory.started.get(model.name)) for model in self.plan.models]
        models = [model for model in models if model.sleeps and model.name in running]
        engines = [Engine(model, self.plan.instance.secrets) for model in models]
        answers = await asyncio.gather(*(is_sleeping(engine, _ASLEEP_PATIENCE) for engine in engines))
        asleep = (model.name for model, answer in zip(models, answers, strict=True) if answer)
        return ((name, e.FoundAsleep(running[name])) for name in asleep)

    async def _what_runs(self) -> dict[str, int]:
        """The living process of each model, as circus knows it; asked until it answers."""
        said = ""
        while True:
            try:
                names = [name for watcher in await self._circus.status() if (name := model_of(watcher))]
                found = {name: await self._circus.pids(watcher_of(name)) for name in names}
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
        name = model_of(watcher)
        if not name:
            return
        if self._keeper is None:
            self._early.append((watcher, topic, message))
            return
        if name not in self._keeper.lives:
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
            self._tail(name).mark()
            self._ooms[name] = processes.oom_kills()
        self._keeper.feed(name, event)
        self._publish_changes()

    def _ended(self, name: str, pid: int, code: int | None) -> None:
        """It is gone; `code` is None where circus did not tell (yet)."""
        self._missing.pop(pid, None)
        oom = processes.oom_kills() > self._ooms.get(name, sys.maxsize)
        why = diagnose(code, self._tail(name).last_lines(), oom=oom)
        if pid in self._unexplained:
            self._unexplained.discard(pid)
            self._feed(name, e.Explained(pid, why))
            return
        if code is None:
            self._unexplained.add(pid)
        self._feed(name, e.Exited(pid, why))

    def _command(self, command: CommandMessage) -> ReplyMessage:
        if self._keeper is None:
            return ReplyMessage((), "the health plugin is just starting: try again")
        reply = self._reload(self._keeper) if command.verb == "reload" else self._keeper.command(command)
        self._publish_changes()
        return reply

    def _reload(self, keeper: Keeper) -> ReplyMessage:
        """Go on by the plan.json as it is now; what cannot be read changes nothing."""
        try:
            plan = load_plan(self.plan.instance.plan.read_bytes())
        except (OSError, ValueError) as error:
            said = str(error).split("\n", 1)[0]
            log.warning("the new plan cannot be read, going on by the old one: %s", said)
            return ReplyMessage((), f"the new plan cannot be read: {said}")
        log.info("operator: a new plan, made from %s", plan.source)
        self.plan = plan
        keeper.take_plan(plan)
        self._fit()
        return ReplyMessage(tuple(keeper.lives))

    def _fit(self) -> None:
        """Have circus's watchers agree with the plan, as far as they are at rest."""
        if self._keeper is not None:
            self._fitted = frozenset(self._keeper.lives)
            self.spawn("fitting circus", self._hands.refit(self._fitted))

    def _tail(self, name: str) -> LogTail:
        if name not in self._tails:
            self._tails[name] = LogTail(self.plan.instance.log(name))
        return self._tails[name]

    def _counted(self, message: CountsMessage) -> None:
        if self._lookout is not None:
            self._lookout.hear(message)

    # What goes on.

    def beat(self) -> None:
        """Look at everything that tells nothing by itself."""
        now = time.monotonic()
        away, self._last_beat = now - self._last_beat > _AWAY, now
        if self._keeper is None or self._lookout is None:
            return
        if away:
            log.warning("was away for more than %g s: earlier silence of engines does not count", _AWAY)
            self._keeper.resumed()
        for name, life in self._keeper.lives.items():
            with self.guarded(f"watching {name}"):
                self._watch(name, life, now)
        self._lookout.look_round(now)
        self._look_for_stopped(now)
        self._keeper.tick()
        if self._fitted != frozenset(self._keeper.lives):  # one that left the plan is gone
            self._fit()
        self._publish_changes()
        self._save()
        if not self._publisher.held:
            log.error("somebody else took our address over: leaving")
            self.leave()

    def _watch(self, name: str, life: Life, now: float) -> None:
        if life.pid is None or self._lookout is None:
            return
        if not processes.is_alive(life.pid):
            self._notice_missing(name, life.pid, now)
            return
        if life.state is State.LOADING and (phase := self._tail(name).phase()):
            self._feed(name, e.PhaseSeen(phase))
        self._lookout.look(name, now)

    def _look_for_stopped(self, now: float) -> None:
        """Whatever of an engine was stopped at this look and the last one."""
        if self._keeper is None or now - self._looked < _LOOK_FOR_STOPPED:
            return
        self._looked = now
        engines = {life.pid: name for name, life in self._keeper.lives.items() if life.pid is not None}
        parts = (process for process in every_process() if process.session in engines)
        for process in self._stopped.look(parts):
            self._feed(engines[process.session], e.Halted(process.session, process.pid))

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
