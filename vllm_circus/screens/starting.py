"""A start as data: what became of each model that is waited for, and what a key changes. Pure.

A model that failed stays so until it is ready after all, or somebody has it started again. What failed is decided by
a person: `r` starts it again, `c` goes on without it, `e` leaves to edit it; only those that are offered count. The
wait is over when every model is ready and the proxy serves, or when nobody decides for `patience` seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from vllm_circus.bus.messages import CommandMessage, CountsMessage, ModelsMessage, ModelState, Verb
from vllm_circus.lifecycle.states import State
from vllm_circus.screens.events import Event, Gone, Key, Logged, Planned, Said, Tick
from vllm_circus.view.goals import Verdict, judge_start
from vllm_circus.view.logs import Entry

#: Lines of each log that are kept.
KEPT = 100
RETRY, WITHOUT, EDIT = "r", "c", "e"


@dataclass(frozen=True)
class Outcome:
    """How the wait ended.

    Attributes:
        kind: `ready`: all are, less those left out; `failed`: some are not, and nobody decided; `edit`: `model` is to
            be edited; `left`: the person waits no longer; `gone`: the set ended.
        model: which one is to be edited.
        failed: those that did not become ready.
        waiting: names of those that were still on their way.
        left_out: names of those that were stopped, to continue without them.
        at_rest: those that need not be ready, since the first request starts them.
    """

    kind: Literal["ready", "failed", "edit", "left", "gone"]
    model: str = ""
    failed: Mapping[str, ModelState] = field(default_factory=dict)
    waiting: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    at_rest: Mapping[str, ModelState] = field(default_factory=dict)


@dataclass(frozen=True)
class Startup:
    """A start.

    Attributes:
        names: who is waited for, less those that were left out.
        choices: the keys that are offered where one failed.
        patience: seconds until it is over by itself where only failures are left; None for never.
        states: the last word on each; before: the state in which it was started again.
        failed: who failed; chosen: which of them the keys are about.
        serves: whether a proxy worker lives; heard_at: when the health plugin last spoke.
        keys_shown: the keys are explained.
        asked_at: since when nobody decided on what failed; None while there is something else to wait for.
        orders: wishes that are not sent yet.
    """

    names: tuple[str, ...]
    choices: frozenset[str] = frozenset()
    patience: float | None = None
    states: Mapping[str, ModelState] = field(default_factory=dict)
    before: Mapping[str, ModelState] = field(default_factory=dict)
    failed: tuple[str, ...] = ()
    chosen: str = ""
    left_out: tuple[str, ...] = ()
    serves: bool = False
    began: float = 0.0
    now: float = 0.0
    asked_at: float | None = None
    logs: Mapping[str, tuple[Entry, ...]] = field(default_factory=dict)
    said: str = ""
    gone: bool = False
    keys_shown: bool = False
    orders: tuple[CommandMessage, ...] = ()
    outcome: Outcome | None = None

    @property
    def ready(self) -> tuple[str, ...]:
        """Those that are where they were wanted."""
        return tuple(name for name in self.names if self._verdict(name) is Verdict.DONE)

    @property
    def at_rest(self) -> tuple[str, ...]:
        """Those of them that are not ready, and need not be: a request brings them up."""
        return tuple(name for name in self.ready if self.states[name].state is not State.READY)

    @property
    def waiting(self) -> tuple[str, ...]:
        """Those that are on their way."""
        return tuple(name for name in self.names if name not in self.failed and name not in self.ready)

    @property
    def troubled(self) -> tuple[str, ...]:
        """Those that a choice can be made about: failed, or waiting after a crash to be started again."""
        backing_off = {name for name, state in self.states.items() if state.state is State.BACKOFF}
        return tuple(name for name in self.names if name in self.failed or name in backing_off)

    @property
    def subject(self) -> str:
        """The model that a choice is about now; empty where there is none."""
        return self.chosen if self.chosen in self.troubled else next(iter(self.troubled), "")

    def _verdict(self, name: str) -> Verdict:
        state = self.states.get(name)
        return Verdict.WAITING if state is None else judge_start(self.before.get(name), state)

    def ended(self, kind: Literal["ready", "failed", "edit", "left", "gone"], model: str = "") -> Startup:
        """The state with this outcome."""
        failed = {name: self.states[name] for name in self.failed if name in self.states}
        at_rest = {name: self.states[name] for name in self.at_rest}
        return replace(self, outcome=Outcome(kind, model, failed, self.waiting, self.left_out, at_rest))


def after(state: Startup, event: Event) -> Startup:
    """The state after an event."""
    match event:
        case Key(name):
            state = _pressed(replace(state, asked_at=state.now if state.asked_at is not None else None), name)
        case Tick(now):
            state = replace(state, now=now, began=state.began or now)
        case Logged(entries):
            return replace(state, logs=_kept(state, entries))
        case ModelsMessage() | CountsMessage():
            state = _heard(state, event)
        case Gone() | Planned():
            state = replace(state, gone=isinstance(event, Gone))
        case Said(text):
            state = replace(state, said=text)
    return state if state.outcome else _judged(state)


def _heard(state: Startup, event: ModelsMessage | CountsMessage) -> Startup:
    if isinstance(event, CountsMessage):
        return replace(state, serves=bool(event.workers))
    states = {told.name: told for told in event.models if told.name in state.names}
    state = replace(state, states={**state.states, **states})
    failed = tuple(name for name in state.names if name in state.failed or _has_failed(state, name))
    return replace(state, failed=tuple(name for name in failed if name not in state.ready))


def _has_failed(state: Startup, name: str) -> bool:
    told = state.states.get(name)
    return told is not None and judge_start(state.before.get(name), told) is Verdict.FAILED


def _judged(state: Startup) -> Startup:
    """Whether it is over, and since when only a person can go on."""
    if not state.waiting and not state.failed and state.serves:
        return state.ended("ready")
    stuck = state.gone or bool(state.failed and not state.waiting)
    if not stuck:
        return replace(state, asked_at=None)
    asked_at = state.now if state.asked_at is None else state.asked_at
    late = state.patience is not None and state.now - asked_at >= state.patience
    if late or not state.choices:
        return state.ended("gone" if state.gone else "failed")
    return replace(state, asked_at=asked_at)


def _pressed(state: Startup, key: str) -> Startup:
    if state.keys_shown or key == "?":
        return replace(state, keys_shown=not state.keys_shown)
    if key in {"q", "Q", "escape"}:
        return state.ended("gone" if state.gone else "left")
    subject = state.subject
    if not subject or state.gone:
        return state
    if key in {"tab", "down", "backtab", "up"}:
        step = 1 if key in {"tab", "down"} else -1
        at = state.troubled.index(subject) + step
        return replace(state, chosen=state.troubled[at % len(state.troubled)])
    return _chosen(state, subject, key) if key in state.choices else state


def _chosen(state: Startup, subject: str, key: str) -> Startup:
    if key == EDIT:
        return state.ended("edit", subject)
    state = _ordered(state, "start" if key == RETRY else "stop", subject)
    state = replace(state, failed=tuple(name for name in state.failed if name != subject), said="")
    if key == RETRY:
        return replace(state, before={**state.before, subject: state.states[subject]})
    rest = tuple(name for name in state.names if name != subject)
    return replace(state, names=rest, left_out=(*state.left_out, subject))


def _ordered(state: Startup, verb: Verb, name: str) -> Startup:
    return replace(state, orders=(*state.orders, CommandMessage(verb, (name,))))


def taken(state: Startup) -> tuple[Startup, tuple[CommandMessage, ...]]:
    """The wishes, and the state without them."""
    return (replace(state, orders=()), state.orders) if state.orders else (state, ())


def _kept(state: Startup, entries: tuple[Entry, ...]) -> Mapping[str, tuple[Entry, ...]]:
    logs = dict(state.logs)
    for entry in entries:
        logs[entry.part] = (*logs.get(entry.part, ()), entry)[-KEPT:]
    return logs
