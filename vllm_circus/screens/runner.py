"""Running a screen: events in, pictures out; on a terminal that cannot, or for a screen reader, lines instead.

A screen is a `View`: pure functions over its state. Here are the loops that feed it. A picture is drawn where
something changed, at most every `EVERY` seconds unless a key was pressed.
"""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TextIO, TypeVar

from vllm_circus.bus.command import send_command
from vllm_circus.bus.messages import CommandMessage, CountsMessage, ModelsMessage
from vllm_circus.errors import CircusError
from vllm_circus.paths import Instance
from vllm_circus.screens.events import Event, Key, Said, Size
from vllm_circus.screens.feed import EVERY, Feed
from vllm_circus.screens.terminal import Terminal
from vllm_circus.view.table import Line, paint

S = TypeVar("S")

#: Is told every word of the bus, and None where none came; raises CircusError where there is no hope.
Guard = Callable[[ModelsMessage | CountsMessage | None], None]

_ANSWER_WITHIN = 5.0  # seconds for the health plugin to take a wish


def _no_orders(state: S) -> tuple[S, tuple[CommandMessage, ...]]:
    return state, ()


@dataclass(frozen=True)
class View(Generic[S]):
    """A screen.

    Attributes:
        update: the state after an event.
        render: the state as so many columns and lines.
        ended: whether it is over.
        tell: what is new between two states, as lines for somebody who reads or hears one after the other.
        orders: wishes to send to the health plugin, and the state without them.
    """

    update: Callable[[S, Event], S]
    render: Callable[[S, int, int], list[Line]]
    ended: Callable[[S], bool]
    tell: Callable[[S, S], Iterable[Line]]
    orders: Callable[[S], tuple[S, tuple[CommandMessage, ...]]] = _no_orders


@dataclass(frozen=True)
class Source:
    """Where events come from: an instance, its feed, and who is told every word before the screen is."""

    instance: Instance
    feed: Feed
    guard: Guard | None = None

    def events(self, also: tuple[int, ...]) -> Iterator[list[Event]]:
        """See `Feed.events`. Raises what the guard raises."""
        for events in self.feed.events(also):
            if self.guard is not None:
                words = [event for event in events if isinstance(event, ModelsMessage | CountsMessage)]
                for word in words or (None,):
                    self.guard(word)
            yield events


def run(view: View[S], state: S, source: Source, *, full: bool) -> S:
    """Show the view until it is over, and return its last state.

    With `full` on the whole terminal, else as lines on standard output. Raises KeyboardInterrupt for Ctrl-C,
    BrokenPipeError where nobody is there any more.
    """
    return _run_full(view, state, source) if full else _run_lines(view, state, source, sys.stdout)


def _run_full(view: View[S], state: S, source: Source) -> S:
    with Terminal() as terminal:
        state = _all(view, state, (Size(*terminal.size), *source.feed.first()))
        drawn, drawn_at = None, 0.0
        for events in source.events(terminal.sources):
            if terminal.heed():
                events = [*events, Size(*terminal.size)]  # noqa: PLW2901 - what came, and what the signals say
                drawn = None
            keys = [Key(name) for name in terminal.read()]
            if Key("ctrl-l") in keys:
                terminal.redraw()
                drawn = None
            state = _all(view, state, (*events, *keys))
            state = _send(view, state, source.instance)
            if view.ended(state):
                return state
            due = bool(keys) or drawn is None or time.monotonic() - drawn_at >= EVERY
            if due and state is not drawn:
                terminal.draw(view.render(state, *terminal.size))
                drawn, drawn_at = state, time.monotonic()
    return state


def _run_lines(view: View[S], state: S, source: Source, out: TextIO) -> S:
    """The same as lines; on a terminal, Enter ends it."""
    keyboard = (sys.stdin.fileno(),) if sys.stdin.isatty() else ()
    state = _say(view, state, source.feed.first(), out)
    for events in source.events(keyboard):
        state = _send(view, _say(view, state, events, out), source.instance)
        if view.ended(state) or any(_entered(descriptor) for descriptor in keyboard):
            return state
    return state


def _entered(descriptor: int) -> bool:
    """Whether a line was entered, which is then taken away, or the terminal is gone."""
    if not select.select([descriptor], [], [], 0.0)[0]:
        return False
    os.read(descriptor, 4096)
    return True


def _say(view: View[S], state: S, events: Iterable[Event], out: TextIO) -> S:
    after = _all(view, state, events)
    for line in view.tell(state, after):
        out.write(paint(line, colour=False) + "\n")
    out.flush()
    return after


def _all(view: View[S], state: S, events: Iterable[Event]) -> S:
    for event in events:
        state = view.update(state, event)
    return state


def _send(view: View[S], state: S, instance: Instance) -> S:
    state, orders = view.orders(state)
    for order in orders:
        state = view.update(state, Said(_sent(instance, order)))
    return state


def _sent(instance: Instance, order: CommandMessage) -> str:
    try:
        reply = send_command(instance.commands, order, _ANSWER_WITHIN)
    except CircusError as error:
        return str(error)
    return reply.error
