"""Which models a command means and may be carried out for, and as what events. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from vllm_circus import logline
from vllm_circus.bus.messages import CommandMessage
from vllm_circus.lifecycle import events as e
from vllm_circus.lifecycle.events import Event
from vllm_circus.lifecycle.life import After, Life
from vllm_circus.lifecycle.states import State
from vllm_circus.plan.types import ModelPlan

_EVENTS: Mapping[str, Callable[[], Event]] = {
    "start": e.StartWished,
    "stop": e.StopWished,
    "wake": e.WakeWished,
    "want": e.Wanted,
}
_DOWN = frozenset({State.STOPPED, State.FAILED, State.BACKOFF})
_AWAKE = frozenset({State.READY, State.WAKING})


@dataclass(frozen=True)
class Wishes:
    """Judges commands by the models as they are."""

    models: Mapping[str, ModelPlan]
    lives: Mapping[str, Life]

    def meant(self, command: CommandMessage) -> tuple[tuple[str, ...], str]:
        """The models that a command is for, each once; or none, and why nothing is done.

        Where all models are meant, those that it makes no sense for are left out; a named one is an error. Workers
        may not have heard of a new plan yet, so what they name and is not there is nobody's.
        """
        if command.verb == "reload":
            return (), "only the set as a whole is reloaded"
        if command.verb == "want":
            return tuple(name for name in command.models if name in self.models), ""
        unknown = [name for name in command.models if name not in self.models]
        if unknown:
            return (), f"no such model: {', '.join(map(logline.clean, unknown))}"
        names = tuple(dict.fromkeys(command.models)) or tuple(self.models)
        objections = {name: words for name in names if (words := self._objection(command.verb, name))}
        able = tuple(name for name in names if name not in objections)
        if objections and (command.models or not able):
            return (), "; ".join(objections.values())
        return able, ""

    def event(self, command: CommandMessage) -> Event:
        """What the machine is told."""
        return e.SleepWished(command.level) if command.verb == "sleep" else _EVENTS[command.verb]()

    def _objection(self, verb: str, name: str) -> str:
        if verb == "sleep":
            return self._cannot_sleep(name)
        return self._cannot_wake(name) if verb == "wake" else ""

    def _cannot_sleep(self, name: str) -> str:
        state = self.lives[name].state
        if not self.models[name].sleeps:
            return f"{name} has no sleep mode: set `sleep: true` in the models file"
        if state in {State.READY, State.SLEEPING, State.DRAINING}:
            return ""
        return f"{name} is {state}: only a model that is ready goes to sleep"

    def _cannot_wake(self, name: str) -> str:
        life = self.lives[name]
        falls_asleep = life.state is State.DRAINING and life.after is After.SLEEP
        if life.state in _AWAKE or life.state is State.SLEEPING or falls_asleep:
            return ""
        return f"{name} is {life.state}, not asleep" + (": start it" if life.state in _DOWN else "")
