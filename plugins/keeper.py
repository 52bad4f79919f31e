"""Keep every model's life: feed the machine, let the scheduler admit, tell what changed. No sockets, no processes.

`perform` is handed each action and must not answer before it returned; `clock` gives the time.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from vllm_circus import logline
from vllm_circus.bus.messages import CommandMessage, ModelsMessage, ModelState, ReplyMessage
from vllm_circus.lifecycle import events as e
from vllm_circus.lifecycle.events import Action, Event, Moment
from vllm_circus.lifecycle.life import After, Life
from vllm_circus.lifecycle.machine import advance, resume
from vllm_circus.lifecycle.memory import Memory
from vllm_circus.lifecycle.phases import expected_load, remaining_load, remember_load
from vllm_circus.lifecycle.scheduler import Candidate, claimed_gpus, next_starts
from vllm_circus.lifecycle.states import State
from vllm_circus.plan.types import ModelPlan, Plan

log = logging.getLogger(__name__)

_ENDING = frozenset({State.DRAINING, State.STOPPING})
_WISHES: dict[str, Callable[[], Event]] = {"start": e.StartWished, "stop": e.StopWished, "restart": e.RestartWished}


@dataclass(frozen=True)
class Room:
    """What the machine allows: how many models may load at once, and whether it has GPUs that unpinned ones share."""

    starts: int
    gpus: bool


class Keeper:
    """The lives of all models of a plan, in the plan's order."""

    def __init__(
        self,
        plan: Plan,
        memory: Memory,
        room: Room,
        perform: Callable[[ModelPlan, Action], None],
        clock: Callable[[], Moment],
    ) -> None:
        self._models = {model.name: model for model in plan.models}
        self._room = room
        self._perform = perform
        self._clock = clock
        self.lives = {name: memory.lives.get(name, Life()) for name in self._models}
        self.loads = {name: memory.loads.get(name, ()) for name in self._models}
        # Never below what any worker has heard from a predecessor whose memory was lost.
        self.sequence = max(memory.sequence + 1, int(clock().wall))
        self.changes = 0
        """Grows with everything that is worth publishing or writing down."""
        self.turned: dict[str, int] = {}
        """The sequence with which each model came into its present state, as far as that happened here."""

    def model(self, name: str) -> ModelPlan:
        """The plan of a model."""
        return self._models[name]

    def begin(self) -> None:
        """A new set: whatever is enabled is to run."""
        for name, model in self._models.items():
            if model.enabled:
                self.feed(name, e.StartWished())
            else:
                self._put(name, replace(self.lives[name], reason="not enabled in the models file"))
        self.admit()

    def take_up(self, name: str, pid: int | None) -> None:
        """Go on with a life that was written down, given the process that circus runs for it now, if any."""
        life, actions = resume(self.lives[name], pid, self._clock(), self._models[name])
        self._put(name, life)
        self._act(name, actions)

    def feed(self, name: str, event: Event) -> None:
        """Something happened to a model. Events about models that are not in the plan are nobody's."""
        if name not in self._models:
            return
        before = self.lives[name]
        life, actions = advance(before, event, self._clock(), self._models[name])
        if before.state is State.LOADING and life.state is State.READY:
            self.loads[name] = remember_load(self.loads[name], self._clock().steady - before.started)
        self._put(name, life)
        self._act(name, actions)

    def tick(self) -> None:
        """Time went on."""
        for name in self._models:
            self.feed(name, e.Tick())
        self.admit()

    def resumed(self) -> None:
        """We ourselves were away for a while."""
        for name in self._models:
            self.feed(name, e.Resumed())

    def admit(self) -> None:
        """Start whoever's turn it is."""
        candidates = [
            Candidate(
                name, model.priority, claimed_gpus(model.gpus, machine_has_gpus=self._room.gpus), self.lives[name]
            )
            for name, model in self._models.items()
        ]
        for name in list(next_starts(candidates, self._room.starts)):
            self.feed(name, e.Admitted())

    def command(self, command: CommandMessage) -> ReplyMessage:
        """Take an operator's wish. Accepted are the models that will change."""
        unknown = [name for name in command.models if name not in self._models]
        if unknown:
            return ReplyMessage((), f"no such model: {', '.join(map(logline.clean, unknown))}")
        names = command.models or tuple(self._models)
        if command.verb == "restart" and (group := self._of_two(names)):
            return ReplyMessage((), f"replicas of {group} are restarted one at a time: wait for each to be ready")
        accepted = tuple(name for name in names if self._wish(name, command.verb))
        log.info("operator: %s %s: %s", command.verb, " ".join(names), f"{len(accepted)} to change")
        self.admit()
        return ReplyMessage(accepted)

    def message(self, pid: int) -> ModelsMessage:
        """What is to be published now."""
        now = self._clock()
        states = tuple(self._shown(name, life, now) for name, life in self.lives.items())
        return ModelsMessage(now.wall, pid, self.sequence, states)

    def memory(self, owner: str) -> Memory:
        """What is to be written down."""
        return Memory(owner, self.sequence, dict(self.lives), dict(self.loads))

    def _of_two(self, names: Iterable[str]) -> str:
        """A model of which more than one replica is among the names; empty where there is none."""
        groups = Counter(self._models[name].group for name in dict.fromkeys(names))
        return next((group for group, number in groups.items() if number > 1), "")

    def _wish(self, name: str, verb: str) -> bool:
        before = self.lives[name]
        self.feed(name, _WISHES[verb]())
        return _course(before) != _course(self.lives[name]) or (verb == "restart" and before.state is State.QUEUED)

    def _put(self, name: str, life: Life) -> None:
        before = self.lives[name]
        if life == before:
            return
        self.lives[name] = life
        if replace(life, answered=0.0) != replace(before, answered=0.0):
            self.changes += 1
        if life.state is not before.state:
            self.sequence += 1
            self.turned[name] = self.sequence
            said = f": {life.reason}" if life.reason != before.reason and life.reason else ""
            log.info("%s: %s -> %s%s", name, before.state, life.state, said)

    def _act(self, name: str, actions: Iterable[Action]) -> None:
        for action in actions:
            self._perform(self._models[name], action)

    def _shown(self, name: str, life: Life, now: Moment) -> ModelState:
        return ModelState(
            name=name,
            state=life.state,
            reason=logline.clean(self._reason(life, now)),
            since_at=life.since_at,
            pid=life.pid,
            started_at=life.started_at,
            phase=logline.clean(life.phase),
            tries=life.tries,
            retry_after=self._retry_after(name, life, now),
        )

    @staticmethod
    def _reason(life: Life, now: Moment) -> str:
        if life.state is State.BACKOFF and life.due is not None:
            return f"{life.reason}; next try in {max(0.0, life.due - now.steady):.0f} s"
        if life.state is State.QUEUED and life.remains:
            return f"what process {life.remains[0]} started is still ending"
        return life.reason

    def _retry_after(self, name: str, life: Life, now: Moment) -> float | None:
        former = self.loads[name]
        expected = expected_load(former)
        if expected is None:
            return None
        if life.state is State.LOADING:
            return remaining_load(former, now.steady - life.since)
        if life.state is State.QUEUED or (life.state in _ENDING and life.after is After.START):
            return expected
        if life.state is State.BACKOFF and life.due is not None:
            return expected + max(0.0, life.due - now.steady)
        return None


def _course(life: Life) -> tuple[State, After | None]:
    """Where a life is going."""
    return life.state, life.after if life.state in _ENDING else None
