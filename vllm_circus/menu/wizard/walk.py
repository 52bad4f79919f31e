"""Questions one after the other, with the way back. Pure but for what the questions do.

Rules: Back in one question asks the one before it again, with its answer as what it proposes; questions that do not
apply, and those with nothing to choose from, are passed over both ways; Back in the first one ends the walk with
everything that was answered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vllm_circus.menu.ask import Back
from vllm_circus.menu.wizard.setup import Setup


class BackWith(Back):
    """One step back, with what was answered meanwhile."""

    def __init__(self, setup: Setup) -> None:
        super().__init__()
        self.setup = setup


class NothingToAsk(Exception):
    """There is nothing to choose from; `tell` says so, which is heard on the way forward alone."""

    def __init__(self, tell: Callable[[], None]) -> None:
        super().__init__()
        self.tell = tell


def _always(_setup: Setup) -> bool:
    return True


@dataclass(frozen=True)
class Step:
    """One question, or several that belong together: `place` is what of the models file it is about."""

    place: str
    ask: Callable[[Setup], Setup]
    applies: Callable[[Setup], bool] = _always


def walk(setup: Setup, steps: Sequence[Step], keep: Callable[[Setup], None], *, start: int = 0) -> Setup:
    """Ask all of them; `keep` is told of every answer. Raises BackWith where somebody goes back from the first."""
    position, step_by = start, 1
    while position < len(steps):
        if position < 0:
            raise BackWith(setup)
        step = steps[position]
        if step.applies(setup):
            try:
                setup, step_by = step.ask(setup), 1
                keep(setup)
            except Back as back:
                setup, step_by = back.setup if isinstance(back, BackWith) else setup, -1
            except NothingToAsk as nothing:
                if step_by > 0:
                    nothing.tell()
        position += step_by
    return setup
