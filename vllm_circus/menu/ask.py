"""How a menu asks: what can be asked, whoever draws it.

`terminal.py` draws with questionary, `plain.py` writes numbered lines for screen readers and bare terminals, and tests
answer from a script. Rules: every question can be gone back from (`Back`); a wrong answer is explained in place and
asked again, by a `check` that returns a sentence, or nothing where the answer is fine; Ctrl-C is KeyboardInterrupt.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from vllm_circus.view.table import Line

T = TypeVar("T")


class Back(Exception):
    """Escape: one step back."""


@dataclass(frozen=True)
class Choice(Generic[T]):
    """One thing to choose: `hint` stands beside it; where `barred` says why, it is shown and cannot be chosen."""

    value: T
    label: str
    hint: str = ""
    barred: str = ""


@dataclass(frozen=True)
class Heading:
    """A line between choices that is none."""

    text: str


#: Says what is wrong with an answer, one sentence; empty where it is fine.
Check = Callable[[str], str]


class Asker(Protocol):
    """Whoever asks. Each question raises Back or KeyboardInterrupt; `pause` is none, and raises the latter alone."""

    def choose(self, title: str, choices: Sequence[Choice[T] | Heading], *, default: T | None = None) -> T:
        """One of several."""
        ...

    def pick(
        self,
        title: str,
        choices: Sequence[Choice[T] | Heading],
        *,
        chosen: Collection[T] = (),
        check: Callable[[list[T]], str] | None = None,
        explain: Callable[[list[T]], str] | None = None,
    ) -> list[T]:
        """Any number of several, space toggles; `explain` says beneath them what the present choice comes to."""
        ...

    def text(
        self,
        title: str,
        *,
        default: str = "",
        check: Check | None = None,
        words: Sequence[str] = (),
    ) -> str:
        """A line of text, stripped; `words` complete it."""
        ...

    def path(self, title: str, *, default: str = "", check: Check | None = None, folders: bool = False) -> str:
        """A path, completed from the disk, `~` expanded; only folders with `folders`."""
        ...

    def confirm(self, title: str, *, default: bool = True) -> bool:
        """Yes or no."""
        ...

    def show(self, lines: Iterable[Line]) -> None:
        """Lines of a view, above the next question."""
        ...

    def say(self, text: str) -> None:
        """A sentence or several, above the next question."""
        ...

    def pause(self) -> None:
        """Wait until what was shown has been read: any key or Enter."""
        ...


def throws_away(asker: Asker) -> bool:
    """Whether what was changed is to be lost: Escape says no, and a second Ctrl-C raises KeyboardInterrupt."""
    try:
        return asker.confirm("Throw away what was changed?", default=False)
    except Back:
        return False
