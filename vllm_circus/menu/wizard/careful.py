"""An asker that loses nothing: Ctrl-C in a question asks what is to become of what was entered."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Literal, TypeVar

from vllm_circus.menu.ask import Asker, Back, Check, Choice, Heading

if TYPE_CHECKING:
    from vllm_circus.view.table import Line

T = TypeVar("T")

_GO_ON: Literal["on"] = "on"


class Abandoned(Exception):
    """The wizard is to end: `keep` says whether the draft stays."""

    def __init__(self, *, keep: bool) -> None:
        super().__init__()
        self.keep = keep


class CarefulAsker:
    """Asks through another asker; whoever goes on after Ctrl-C is asked the same question again."""

    def __init__(self, asker: Asker) -> None:
        self._asker = asker

    def choose(self, title: str, choices: Sequence[Choice[T] | Heading], *, default: T | None = None) -> T:
        """One of several."""
        return self._again(lambda: self._asker.choose(title, choices, default=default))

    def pick(
        self,
        title: str,
        choices: Sequence[Choice[T] | Heading],
        *,
        chosen: Collection[T] = (),
        check: Callable[[list[T]], str] | None = None,
        explain: Callable[[list[T]], str] | None = None,
    ) -> list[T]:
        """Any number of several."""
        return self._again(lambda: self._asker.pick(title, choices, chosen=chosen, check=check, explain=explain))

    def text(
        self,
        title: str,
        *,
        default: str = "",
        check: Check | None = None,
        words: Sequence[str] = (),
    ) -> str:
        """A line of text."""
        return self._again(lambda: self._asker.text(title, default=default, check=check, words=words))

    def path(self, title: str, *, default: str = "", check: Check | None = None, folders: bool = False) -> str:
        """A path."""
        return self._again(lambda: self._asker.path(title, default=default, check=check, folders=folders))

    def confirm(self, title: str, *, default: bool = True) -> bool:
        """Yes or no."""
        return self._again(lambda: self._asker.confirm(title, default=default))

    def show(self, lines: Iterable[Line]) -> None:
        """Lines of a view."""
        self._asker.show(lines)

    def say(self, text: str) -> None:
        """Sentences."""
        self._asker.say(text)

    def pause(self) -> None:
        """Until a key."""
        self._again(self._asker.pause)

    def _again(self, ask: Callable[[], T]) -> T:
        while True:
            try:
                return ask()
            except KeyboardInterrupt:
                self._interrupted()

    def _interrupted(self) -> None:
        """Ask what is to become of it. Raises Abandoned, or KeyboardInterrupt on a second Ctrl-C; the draft stays."""
        choices: list[Choice[Literal["on", "keep", "drop"]] | Heading] = [
            Choice(_GO_ON, "Go on", "back to the question"),
            Choice("keep", "Leave, and keep it", "it is offered the next time"),
            Choice("drop", "Throw it away", "and leave"),
        ]
        try:
            answer = self._asker.choose("Throw away what was entered?", choices, default=_GO_ON)
        except Back:
            return
        if answer != _GO_ON:
            raise Abandoned(keep=answer == "keep")
