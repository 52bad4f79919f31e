"""Keep every model's life: feed the machine, let the scheduler admit, tell what changed. No sockets, no processes.

`perform` is handed each action and must not answer before it returned; `clock` gives the time. Rules beyond those of
one life (`lifecycle.machine`), of turns (`scheduler`) and of replicas (`rounds`):

- A new set starts what is enabled, except for what is `on_demand`, which rests on call.
- A new plan (`take_plan`) takes effect at once. Only what runs with another digest than the plan's gets a new process;
  what sleeps so is ended, and comes anew when it is asked for; what failed with another one is tried anew. What was
  turned off ends, what was added, turned on or is not `on_demand` any more starts as with a new set, and what is gone
  from the plan is kept until nothing of it is.
- What runs by an earlier plan is looked after where it was started (`started`). A replica that has by it what the one
  whose turn it is needs does not wait for its own turn.
- A successor that finds another plan than the one it was written down with does the same (`catch_up`).
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from vllm_circus.bus.messages import CommandMessage, ModelsMessage, ReplyMessage
from vllm_circus.lifecycle import events as e
from vllm_circus.lifecycle.events import Action, Event, Moment
from vllm_circus.lifecycle.life import After, Life
from vllm_circus.lifecycle.machine import advance, resume
from vllm_circus.lifecycle.memory import Memory
from vllm_circus.lifecycle.phases import remember_load
from vllm_circus.lifecycle.rounds import Course, Round, course, order
from vllm_circus.lifecycle.scheduler import Candidate, are_calm, in_the_way, next_starts, turns_over
from vllm_circus.lifecycle.states import State
from vllm_circus.lifecycle.steps import by_the_clock
from vllm_circus.plan.types import ModelPlan, Plan, digest_of, dump_plan, watcher_of

from .shown import Known, show
from .started import as_started, candidate, has_process, started_before
from .wishes import Wishes

log = logging.getLogger(__name__)

_ENDING = frozenset({State.DRAINING, State.STOPPING})
#: Without a process, and tried by the plan of then.
_TRIED = frozenset({State.LOADING, State.BACKOFF, State.FAILED})


@dataclass(frozen=True)
class Room:
    """What the machine allows: how many models may load at once, and whether it has GPUs that unpinned ones share."""

    starts: int
    gpus: bool


class Keeper:
    """The lives of all models of a plan, in the plan's order, and of those that are leaving."""

    def __init__(
        self,
        plan: Plan,
        memory: Memory,
        room: Room,
        perform: Callable[[ModelPlan, Action], None],
        clock: Callable[[], Moment],
    ) -> None:
        self._room = room
        self._perform = perform
        self._clock = clock
        self._plan = plan
        self._digest = digest_of(dump_plan(plan))
        self._planned = {model.name: model for model in plan.models}
        self._leaving = _leaving(plan, memory)
        self._news = tuple(name for name in self._planned if name not in memory.lives)
        self.lives = {name: memory.lives.get(name, Life()) for name in self.models}
        self._known = {name: Known(memory.loads.get(name, ()), memory.wakes.get(name, ())) for name in self.models}
        self._rounds = dict(memory.rounds)
        self._started = {name: was for name, was in memory.started.items() if name in self.lives}
        # Never below what any worker has heard from a predecessor whose memory was lost.
        self.sequence = max(memory.sequence + 1, int(clock().wall))
        self.changes = 0
        """Grows with everything that is worth publishing or writing down."""
        self.turned: dict[str, int] = {}
        """The sequence with which each model came into its present state, as far as that happened here."""

    @property
    def models(self) -> dict[str, ModelPlan]:
        """Every model that has a life here, by name: those of the plan, and those that are leaving."""
        return self._planned | self._leaving

    def model(self, name: str) -> ModelPlan:
        """The plan of a model."""
        return self._planned.get(name) or self._leaving[name]

    def running(self, name: str) -> ModelPlan:
        """The plan of a model as far as its process goes by it, where there is one."""
        return as_started(self.model(name), self._started.get(name))

    # A set begins, goes on, or is planned anew.

    def begin(self) -> None:
        """A new set: whatever is enabled is to run."""
        for name in self._planned:
            self._enlist(name)
        self.admit()

    def take_up(self, name: str, pid: int | None) -> None:
        """Go on with a life that was written down, given the process that circus runs for it now, if any."""
        life, actions = resume(self.lives[name], pid, self._clock(), self.model(name))
        self._put(name, life)
        self._act(name, actions)

    def catch_up(self) -> None:
        """After every life was taken up: what the plan has changed since it was written down."""
        for name in self._news:
            self._enlist(name)
        self._renew(self._planned)
        self._let_go()
        self.admit()

    def take_plan(self, plan: Plan) -> None:
        """Go on with another plan for the same set. See the module."""
        before, leaving, lives = self._planned, self._leaving, self.lives
        self._plan, self._digest = plan, digest_of(dump_plan(plan))
        self._planned = {model.name: model for model in plan.models}
        self._leaving = {name: model for name, model in (before | leaving).items() if name not in self._planned}
        self.lives = {name: self.lives.get(name, Life()) for name in self.models}
        self._known = {name: self._known.get(name, Known()) for name in self.models}
        self._started = started_before(lives, before | leaving | self._started, self._planned)
        for name, model in self._planned.items():
            if name not in before or _is_turned_on(before[name], model, self.lives[name]):
                self._enlist(name)
            elif before[name].enabled and not model.enabled:
                self.feed(name, e.StopWished())
        self._renew(before)
        self._let_go()
        self.changes += 1
        self.admit()

    def _enlist(self, name: str) -> None:
        """As with a new set."""
        model, life = self._planned[name], self.lives[name]
        if model.enabled and not model.on_demand:
            self.feed(name, e.StartWished(awaited=False))
        elif life.state is State.STOPPED:
            reason = "the first request starts it" if model.enabled else "not enabled in the models file"
            self._put(name, replace(life, on_call=model.enabled, reason=reason))

    def _renew(self, before: dict[str, ModelPlan]) -> None:
        """A new process for what runs otherwise than planned; `before` is what it was asked for with."""
        outdated = [name for name in self._planned if name in before and self._is_outdated(name, before[name])]
        unneeded = [name for name in outdated if self.lives[name].on_call and not self.lives[name].wished]
        for name in unneeded:  # asleep, or on the way to that
            self.feed(name, e.StopWished())
            self._put(name, replace(self.lives[name], on_call=True, reason="changed; a request starts it anew"))
        self.restart(name for name in outdated if name not in unneeded)

    def _is_outdated(self, name: str, before: ModelPlan) -> bool:
        life, digest = self.lives[name], self._planned[name].digest
        if life.pid is None:
            return life.state in _TRIED and before.digest != digest
        goes_on = life.state not in _ENDING or (life.state is State.DRAINING and life.on_call)
        return goes_on and life.digest != digest

    def _let_go(self) -> None:
        """End what is not planned any more, and forget it when nothing of it is left."""
        for name in self._leaving:
            life = self.lives[name]
            ends = life.state is State.STOPPED or (life.state in _ENDING and life.after is After.REST)
            if not ends or life.on_call or life.wished:
                self.feed(name, e.StopWished())
        lives = self.lives
        ended = {name for name in self._leaving if lives[name].state is State.STOPPED and not lives[name].remains}
        if ended:
            self._leaving = {name: model for name, model in self._leaving.items() if name not in ended}
            self.lives = {name: lives[name] for name in self.models}
            self.turned = {name: sequence for name, sequence in self.turned.items() if name not in ended}
            self.changes += 1

    # What happens.

    def feed(self, name: str, event: Event) -> None:
        """Something happened to a model. Events about models that have no life here are nobody's."""
        if name not in self.lives:
            return
        before, now = self.lives[name], self._clock()
        life, actions = advance(before, event, now, self.model(name))
        if life.state is State.READY:
            self._learn(name, before, now)
        self._put(name, life)
        self._act(name, actions)

    def tick(self) -> None:
        """Time went on."""
        now, calm = self._clock(), are_calm(self._candidates())
        for name in self.lives:
            self._put(name, by_the_clock(self.lives[name], now))
            self.feed(name, e.Tick(calm=name in calm))
        self._go_round()
        self._make_way()
        self._let_go()
        self.admit()

    def resumed(self) -> None:
        """We ourselves were away for a while."""
        for name in self.lives:
            self.feed(name, e.Resumed())

    def admit(self) -> None:
        """Start or wake up whoever's turn it is, and have others make room."""
        for name in list(turns_over(self._candidates(), self._clock().steady)):
            self.feed(name, e.TurnOver())
        for name in list(next_starts(self._candidates(), self._room.starts)):
            self.feed(name, e.Admitted())

    def _candidates(self) -> list[Candidate]:
        behind = frozenset(name for each in self._rounds.values() for name in each.rest)
        return [
            candidate(model, self.lives[name], self._started.get(name), machine_has_gpus=self._room.gpus, behind=behind)
            for name, model in self.models.items()
        ]

    # What is wanted.

    def command(self, command: CommandMessage) -> ReplyMessage:
        """Take an operator's wish, or a worker's. Accepted are the models that will change."""
        wishes = Wishes(self._planned, self.lives)
        names, error = wishes.meant(command)
        if error:
            return ReplyMessage((), error)
        before = dict(self.lives)
        if command.verb == "restart":
            self.restart(names)
        else:
            for name in names:
                self.feed(name, wishes.event(command))
            if command.verb in {"stop", "sleep"}:
                self._rounds = {group: each.without(names) for group, each in self._rounds.items()}
                self.changes += 1
        accepted = tuple(name for name in names if self._is_changed(name, before[name], command.verb))
        if command.verb != "want":
            log.info("operator: %s %s: %s", command.verb, " ".join(names), f"{len(accepted)} to change")
        self.admit()
        return ReplyMessage(accepted)

    def _is_changed(self, name: str, before: Life, verb: str) -> bool:
        return verb == "restart" or _course(before) != _course(self.lives[name])

    def restart(self, names: Iterable[str]) -> None:
        """New processes for models of the plan: of a model with replicas one at a time."""
        replicas: dict[str, list[str]] = {}
        for name in names:
            replicas.setdefault(self._planned[name].group, []).append(name)
        sizes = Counter(model.group for model in self._planned.values())
        for group, few in replicas.items():
            if sizes[group] > 1:
                self._restart_in_turns(group, few)
            else:
                self.feed(few[0], e.RestartWished())

    def _restart_in_turns(self, group: str, names: Iterable[str]) -> None:
        goes_on = self._rounds.get(group)
        turns = order((*(goes_on.rest if goes_on else ()), *names), self.lives)
        if goes_on and goes_on.current not in turns and goes_on.current in self._planned:
            self._rounds[group] = Round(goes_on.current, turns)
        else:
            self._rounds[group] = Round(turns[0], turns[1:])
            self.feed(turns[0], e.RestartWished())
        self.changes += 1

    def _go_round(self) -> None:
        """The next replica, where the former is ready; none, where it is lost."""
        for group, each in list(self._rounds.items()):
            now = course(self.lives[each.current]) if each.current in self._planned else Course.READY
            if now is Course.COMING:
                continue
            del self._rounds[group]
            self.changes += 1
            rest = [name for name in each.rest if name in self._planned]
            if rest and now is Course.READY:
                self._restart_in_turns(group, rest)
            elif rest:
                log.warning("%s did not come back: not restarted are %s", each.current, " ".join(rest))
                for name in rest:
                    self._put(
                        name, replace(self.lives[name], reason=f"not restarted: {each.current} did not come back")
                    )

    def _make_way(self) -> None:
        """A replica that has what the one whose turn it is needs cannot wait for it to be ready."""
        seen = {each.name: each for each in self._candidates()} if self._rounds and self._started else {}
        for group, each in list(self._rounds.items()):
            if each.current in seen and self.lives[each.current].state is State.QUEUED:
                blockers = in_the_way(seen[each.current], [seen[name] for name in each.rest if name in seen])
                self._rounds[group] = each.without(blockers)
                for name in blockers:
                    self.feed(name, e.RestartWished())

    # What is told.

    def message(self, pid: int) -> ModelsMessage:
        """What is to be published now."""
        now = self._clock()
        notes = {name: f"to be restarted after {each.current}" for each in self._rounds.values() for name in each.rest}
        everyone = self._candidates() if self._started else []
        for model in everyone:
            if model.life.state is State.QUEUED and (others := in_the_way(model, everyone)):
                notes[model.name] = f"waits until {', '.join(others)} has moved"
        states = tuple(
            show(model, self.lives[name], self._known[name], now, notes.get(name, ""))
            for name, model in self.models.items()
        )
        return ModelsMessage(now.wall, pid, self.sequence, states, self._digest)

    def memory(self, owner: str) -> Memory:
        """What is to be written down."""
        return Memory(
            owner,
            self.sequence,
            dict(self.lives),
            {name: known.loads for name, known in self._known.items()},
            {name: known.wakes for name, known in self._known.items()},
            dict(self._rounds),
            dict(self._leaving),
            dict(self._started),
        )

    def _learn(self, name: str, before: Life, now: Moment) -> None:
        """How long it took to get ready."""
        known = self._known[name]
        if before.state is State.LOADING:
            loads = remember_load(known.loads, now.steady - before.started)
            self._known[name] = replace(known, loads=loads)
        elif before.state is State.WAKING:
            self._known[name] = replace(known, wakes=remember_load(known.wakes, now.steady - before.since))

    def _put(self, name: str, life: Life) -> None:
        before = self.lives[name]
        if life == before:
            return
        self.lives[name] = life
        if not has_process(life):
            self._started.pop(name, None)
        if _worth_telling(life) != _worth_telling(before):
            self.changes += 1
        if life.state is not before.state:
            self.sequence += 1
            self.turned[name] = self.sequence
            said = f": {life.reason}" if life.reason != before.reason and life.reason else ""
            log.info("%s: %s -> %s%s", name, before.state, life.state, said)

    def _act(self, name: str, actions: Iterable[Action]) -> None:
        for action in actions:
            self._perform(self.running(name), action)


def _leaving(plan: Plan, memory: Memory) -> dict[str, ModelPlan]:
    """Models that have a life and are not planned any more.

    The plan of one that was written down with another plan is lost: what is needed to end it is made up.
    """
    planned = {model.name for model in plan.models}
    template = replace(plan.models[0], gpus=None, exclusive=None, enabled=False, on_demand=False)
    return {
        name: memory.leaving.get(name) or replace(template, name=name, watcher=watcher_of(name), group=name)
        for name in memory.lives
        if name not in planned
    }


def _is_turned_on(before: ModelPlan, model: ModelPlan, life: Life) -> bool:
    """Whether a model at rest would run now, had the set begun with this plan."""
    called = before.on_demand and not model.on_demand and life.on_call
    return life.state is State.STOPPED and model.enabled and (called or not before.enabled)


def _worth_telling(life: Life) -> Life:
    """Without what changes all the time and is learned again by whoever comes after us."""
    return replace(life, answered=0.0, heard=None, quiet=None, iterations=None, frozen=None)


def _course(life: Life) -> tuple[State, After | None, bool, bool]:
    """Where a life is going."""
    return life.state, life.after if life.state in _ENDING else None, life.on_call, life.wished
