"""Look at something that may never answer: a driver that hangs, a network disk that is gone, a stopped process.

Each look has a thread of its own. One that takes too long is left behind: it is a daemon, so it holds up neither the
other looks nor the end of the program.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Answer(Generic[T]):
    """What became of a look: its value, or what it raised; both None where it took too long."""

    value: T | None = None
    error: Exception | None = None
    late: bool = False


def within(seconds: float, look: Callable[[], T]) -> Answer[T]:
    """Do `look` in a thread, and wait for it no longer than `seconds`. Raises nothing that `look` raises."""
    (answer,) = all_within(seconds, (look,))
    return answer


def all_within(seconds: float, looks: Iterable[Callable[[], T]]) -> tuple[Answer[T], ...]:
    """The same for several looks at a time; the answers are in their order."""
    begun = [_begin(look) for look in looks]
    deadline = time.monotonic() + seconds
    for thread, _ in begun:
        thread.join(max(0.0, deadline - time.monotonic()))
    return tuple(answers[0] if answers else Answer(late=True) for _, answers in begun)


def _begin(look: Callable[[], T]) -> tuple[threading.Thread, list[Answer[T]]]:
    answers: list[Answer[T]] = []

    def do() -> None:
        try:
            answers.append(Answer(look()))
        except Exception as error:  # whoever waits is told, and goes on with the next look
            answers.append(Answer(error=error))

    thread = threading.Thread(target=do, name="checkup", daemon=True)
    thread.start()
    return thread, answers
