"""Restarting the replicas of a model one at a time, so that the others serve meanwhile. Pure.

Rules: those that serve nobody come first; the next one comes when the former is ready again; where one does not come
back (it crashed, or somebody stopped it or put it to sleep), the rest are left as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, auto

from vllm_circus.lifecycle.life import After, Life
from vllm_circus.lifecycle.states import State

_ENDING = frozenset({State.DRAINING, State.STOPPING})
_LOST = frozenset({State.BACKOFF, State.FAILED, State.STOPPED, State.SLEEPING})


@dataclass(frozen=True)
class Round:
    """One restart of a model's replicas: the one that has its turn, and those behind it."""

    current: str
    rest: tuple[str, ...] = ()

    def without(self, names: Iterable[str]) -> Round:
        """The same, with some not waiting any more."""
        gone = set(names)
        return Round(self.current, tuple(name for name in self.rest if name not in gone))


class Course(Enum):
    """What has become of the replica whose turn it is."""

    COMING = auto()
    READY = auto()
    LOST = auto()


def order(names: Iterable[str], lives: Mapping[str, Life]) -> tuple[str, ...]:
    """The names in the order of their turns, each once."""
    return tuple(sorted(dict.fromkeys(names), key=lambda name: lives[name].state.routable))


def course(life: Life) -> Course:
    """Where the replica that was told to restart is by now."""
    if life.state is State.READY:
        return Course.READY
    ends = life.state in _ENDING and life.after is not After.START
    return Course.LOST if ends or life.tries or life.state in _LOST else Course.COMING
