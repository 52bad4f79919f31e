"""A keeper whose actions are carried out by a world that works, on a clock that is set by hand."""

from __future__ import annotations

from dataclasses import dataclass, field

from plugins.keeper import Keeper, Room
from vllm_circus.bus.messages import CommandMessage, ModelState, ReplyMessage, Verb
from vllm_circus.lifecycle import events as e
from vllm_circus.lifecycle.life import Diagnosis, Life
from vllm_circus.lifecycle.memory import Memory, dump_memory, load_memory
from vllm_circus.lifecycle.states import State
from vllm_circus.paths import Instance
from vllm_circus.plan.types import ModelPlan, Plan

from .conftest import Clock, make_plan

Done = list[tuple[str, e.Action]]


def make_keeper(
    instance: Instance, clock: Clock, *models: ModelPlan, memory: Memory | None = None, starts: int = 4
) -> tuple[Keeper, Done]:
    """A keeper, and the actions that it wants."""
    done: Done = []
    keeper = Keeper(
        make_plan(instance, *models),
        memory or Memory(),
        Room(starts, gpus=True),
        lambda model, action: done.append((model.name, action)),
        clock,
    )
    return keeper, done


def shown(keeper: Keeper, name: str) -> ModelState:
    """A model as it is told."""
    return next(state for state in keeper.message(1).models if state.name == name)


@dataclass
class Played:
    """What was asked for comes true within a second, except for models in `broken`, whose starts are refused."""

    plan: Plan
    clock: Clock = field(default_factory=Clock)
    busy: set[str] = field(default_factory=set)
    broken: set[str] = field(default_factory=set)
    living: dict[str, int] = field(default_factory=dict)
    done: Done = field(default_factory=list)
    history: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.todo: Done = []
        self.next_pid = 1
        self.keeper = self.kept(Memory())

    def kept(self, memory: Memory) -> Keeper:
        return Keeper(self.plan, memory, Room(4, gpus=True), self.perform, self.clock)

    def perform(self, model: ModelPlan, action: e.Action) -> None:
        self.done.append((model.name, action))
        self.todo.append((model.name, action))
        self.history.append(f"{type(action).__name__} {model.name}")

    def life(self, name: str) -> Life:
        return self.keeper.lives[name]

    def states(self) -> str:
        return " ".join(f"{name}:{life.state}" for name, life in self.keeper.lives.items())

    def say(self, verb: Verb, *names: str) -> ReplyMessage:
        return self.keeper.command(CommandMessage(verb, names))

    def second(self) -> None:
        """A second goes by: everybody does what was asked for, and tells."""
        todo, self.todo = self.todo, []
        for _ in range(4):
            self.clock.steady += 0.25
            self.keeper.tick()
        for name, action in todo:
            self.carry_out(name, action)
        for name, life in self.keeper.lives.items():
            if name in self.living and (life.state is not State.WAKING or life.woken is not None):
                self.keeper.feed(name, e.ProbeOk(self.clock.steady))
            self.keeper.feed(name, e.Asked() if name in self.busy else e.Quiet())
            if life.state is State.DRAINING and name not in self.busy:
                self.keeper.feed(name, e.Drained())

    def seconds(self, number: int) -> None:
        for _ in range(number):
            self.second()

    def carry_out(self, name: str, action: e.Action) -> None:
        match action:
            case e.Start() if name in self.broken:
                self.keeper.feed(name, e.StartRefused(Diagnosis("no such program")))
            case e.Start():
                self.living[name] = self.next_pid
                self.next_pid += 1
                self.keeper.feed(name, e.Spawned(self.living[name]))
            case e.Terminate(pid) | e.Kill(pid):
                if self.living.get(name) == pid:
                    del self.living[name]
                    self.keeper.feed(name, e.Exited(pid, Diagnosis("ended")))
            case e.CleanUp(pid):
                self.keeper.feed(name, e.Cleaned(pid))
            case e.Sleep(pid, _):
                self.keeper.feed(name, e.Slept(pid))
            case e.Wake(pid, _):
                self.keeper.feed(name, e.Woken(pid))

    def replace_keeper(self, plan: Plan | None = None) -> None:
        """The keeper is killed, and what it had asked for is lost; a successor goes on from what was written down."""
        self.todo.clear()
        self.plan = plan or self.plan
        self.keeper = self.kept(load_memory(dump_memory(self.keeper.memory("me"))))
        for name in list(self.keeper.lives):
            self.keeper.take_up(name, self.living.get(name))
        self.keeper.catch_up()


def play(instance: Instance, *models: ModelPlan) -> Played:
    """A set that has begun and come to rest."""
    played = Played(make_plan(instance, *models))
    played.keeper.begin()
    played.seconds(5)
    played.history.clear()
    return played
