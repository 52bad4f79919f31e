"""Misbehaviour on demand: what a ready server can be told to do wrong, and how often.

A fault is set by `--sim-fault` at the start or by `POST /sim/fault` at run time (`--sim-faults` allows it). It stays
until it is cleared, or for a number of requests (`times`).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

FAULTS = {
    "health-silent": "GET /health is accepted and never answered",
    "health-error": "[=STATUS]  GET /health answers STATUS (503)",
    "stuck": "the engine makes no progress: health is good, requests run, the token counter is frozen",
    "error": "[=STATUS]  requests to the model are answered STATUS (500)",
    "slow-first-byte": "=SECONDS  answers of the model begin that much later",
    "die-after-chunks": "=N  the server ends without a word after the Nth chunk of a stream (--sim-exit-code)",
    "engine-dies-after-chunks": "=N  the engine core is killed after the Nth chunk of a stream",
    "exit": "[=SECONDS]  the server ends without a word, so many seconds after it is told to (0; --sim-exit-code)",
    "no-answer": "the connection is closed before the first byte of an answer",
    "garbage": "answers are bytes that are not HTTP",
    "short-body": "the answer is shorter than its content-length says, then the connection closes",
    "long-body": "the answer goes on beyond its content-length",
    "early-close": "[=N]  a stream closes after N chunks (1), without its end",
    "bad-chunk": "a stream has a chunk whose size is no number",
    "huge-header": "[=BYTES]  answers have a header of so many bytes (100000)",
}
"""Every fault, with the form of its value and what it does."""

_NEEDS_VALUE = frozenset({"slow-first-byte", "die-after-chunks", "engine-dies-after-chunks"})


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: its name, its value if it has one, and for how many requests it holds (None: until cleared)."""

    name: str
    value: float | None = None
    times: int | None = None


def make_fault(name: object, value: object = None, times: object = None) -> Fault:
    """A fault that exists, with values that make sense; raises ValueError."""
    if not isinstance(name, str) or name not in FAULTS:
        raise ValueError(f"no such fault: {name!r} (choose from {', '.join(FAULTS)})")
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < inf):
        raise ValueError(f"the value of {name} must be a number that is not negative, got {value!r}")
    if value is None and name in _NEEDS_VALUE:
        raise ValueError(f"{name} needs a value: {name}{FAULTS[name].partition('  ')[0]}")
    if times is not None and (isinstance(times, bool) or not isinstance(times, int) or times < 1):
        raise ValueError(f"times must be a whole number above 0, got {times!r}")
    return Fault(name, None if value is None else float(value), times)


def parse_fault(text: str) -> Fault:
    """A fault as the command line gives it: `NAME` or `NAME=VALUE`; raises ValueError."""
    name, equals, value = text.partition("=")
    if not equals:
        return make_fault(name)
    try:
        number = float(value)
    except ValueError:
        raise ValueError(f"the value of {name} must be a number, got {value!r}") from None
    return make_fault(name, number)


class ActiveFaults:
    """The faults that hold now."""

    def __init__(self, faults: tuple[Fault, ...] = ()) -> None:
        self._active = {fault.name: fault for fault in faults}

    def set(self, fault: Fault) -> None:
        """Let `fault` hold from now on, instead of one of the same name."""
        self._active[fault.name] = fault

    def clear(self, name: str | None = None) -> None:
        """Let the fault `name` hold no more, or none at all."""
        if name is None:
            self._active.clear()
        else:
            self._active.pop(name, None)

    def all(self) -> list[Fault]:
        """What holds now, in the order in which it was set."""
        return list(self._active.values())

    def holds(self, name: str) -> bool:
        """Whether the fault holds; does not use it up."""
        return name in self._active

    def take(self, name: str, default: float = 0.0) -> float | None:
        """The value of the fault (or `default` if it has none) if it holds, else None; uses up one of its times."""
        fault = self._active.get(name)
        if fault is None:
            return None
        if fault.times is not None:
            left = fault.times - 1
            if left:
                self._active[name] = Fault(name, fault.value, left)
            else:
                del self._active[name]
        return default if fault.value is None else fault.value
