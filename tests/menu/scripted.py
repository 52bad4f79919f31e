"""An asker that answers from a list, and remembers what it was asked, shown and refused."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from vllm_circus.menu.ask import Back, Check, Choice, Heading
from vllm_circus.menu.typed import complain
from vllm_circus.view.table import Line, paint

T = TypeVar("T")

#: Answers of a key instead of a text.
BACK = Back
INTERRUPT = KeyboardInterrupt
#: Enter alone: whatever the question proposes.
DEFAULT = object()


@dataclass
class Question:
    """One question as it was asked: `labels` are those of its choices, `barred` says of some why not."""

    title: str
    labels: list[str] = field(default_factory=list)
    hints: dict[str, str] = field(default_factory=dict)
    barred: dict[str, str] = field(default_factory=dict)
    default: Any = None


@dataclass
class Scripted:
    """Answers in turn: a label (or its beginning) or a value to choose, a list to pick, text, True or False.

    BACK, INTERRUPT and DEFAULT are answers to every question; a function is called first, and returns the answer.
    A wrong answer is refused as on a terminal: it lands among the `complaints`, and the next one is taken.
    """

    answers: list[Any]
    questions: list[Question] = field(default_factory=list)
    shown: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    explained: list[str] = field(default_factory=list)

    def choose(self, title: str, choices: Sequence[Choice[T] | Heading], *, default: T | None = None) -> T:
        while True:
            answer = self._next(title, choices, default)
            if answer is DEFAULT:
                found = [one for one in _choices(choices) if one.value == default] or _choices(choices)[:1]
            else:
                found = _matching(answer, choices)
            assert len(found) == 1, f"{answer!r} is {len(found)} of {[one.label for one in _choices(choices)]}"
            if not found[0].barred:
                return found[0].value
            self.complaints.append(found[0].barred)

    def pick(
        self,
        title: str,
        choices: Sequence[Choice[T] | Heading],
        *,
        chosen: Collection[T] = (),
        check: Callable[[list[T]], str] | None = None,
        explain: Callable[[list[T]], str] | None = None,
    ) -> list[T]:
        while True:
            answer = self._next(title, choices, list(chosen))
            wanted = list(chosen) if answer is DEFAULT else answer
            found = [_matching(one, choices)[0] for one in wanted]
            values = [one.value for one in _choices(choices) if one in found]
            if explain is not None:
                self.explained.append(explain(values))
            refusal = next((one.barred for one in found if one.barred), "")
            refusal = refusal or (check(values) if check is not None else "")
            if not refusal:
                return values
            self.complaints.append(refusal)

    def text(
        self,
        title: str,
        *,
        default: str = "",
        check: Check | None = None,
        words: Sequence[str] = (),
    ) -> str:
        while True:
            answer = self._next(title, (), default)
            text = (default if answer is DEFAULT else str(answer)).strip()
            complaint = complain(text, check)
            if not complaint:
                return text
            self.complaints.append(complaint)

    def path(self, title: str, *, default: str = "", check: Check | None = None, folders: bool = False) -> str:
        return self.text(title, default=default, check=check)

    def confirm(self, title: str, *, default: bool = True) -> bool:
        answer = self._next(title, (), default)
        answer = default if answer is DEFAULT else answer
        assert isinstance(answer, bool), f"{title}: {answer!r} is no yes or no"
        return answer

    def show(self, lines: Iterable[Line]) -> None:
        self.shown.extend(paint(line, colour=False) for line in lines)

    def say(self, text: str) -> None:
        self.shown.append(text)

    def pause(self) -> None:
        self.shown.append("(pause)")

    @property
    def titles(self) -> list[str]:
        """The last line of each question."""
        return [question.title.split("\n")[-1] for question in self.questions]

    def question(self, title: str) -> Question:
        """The last question that began so."""
        return next(one for one in reversed(self.questions) if one.title.split("\n")[-1].startswith(title))

    def _next(self, title: str, choices: Sequence[Choice[Any] | Heading], default: Any) -> Any:
        every = _choices(choices)
        self.questions.append(
            Question(
                title,
                [one.label for one in every],
                {one.label: one.hint for one in every},
                {one.label: one.barred for one in every if one.barred},
                default,
            )
        )
        assert self.answers, f"no answer is left for {title!r} {[one.label for one in every]}"
        answer = self.answers.pop(0)
        if isinstance(answer, type) and issubclass(answer, BaseException):
            raise answer
        return answer() if inspect.isfunction(answer) else answer


def _choices(choices: Iterable[Choice[T] | Heading]) -> list[Choice[T]]:
    return [one for one in choices if isinstance(one, Choice)]


def _matching(answer: Any, choices: Iterable[Choice[T] | Heading]) -> list[Choice[T]]:
    every = _choices(choices)
    exact = [one for one in every if one.label == answer or (type(one.value) is type(answer) and one.value == answer)]
    return exact or [one for one in every if isinstance(answer, str) and one.label.startswith(answer)]
