"""Questions as numbered lines, for screen readers and for terminals that can do nothing but print.

Rules: every line is printed once and never changed, no cursor is moved, no colour is used; `<` or Ctrl-D goes back, `?`
says the question again, Ctrl-C is KeyboardInterrupt.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

from vllm_circus.logline import clean
from vllm_circus.menu.ask import Back, Check, Choice, Heading
from vllm_circus.menu.typed import complain
from vllm_circus.view.table import paint

if TYPE_CHECKING:
    from vllm_circus.view.table import Line

T = TypeVar("T")

#: Ends of input in a row after which nobody is there any more.
_PATIENCE = 8
_NUMBERS = re.compile(r"[0-9]{1,5}(?:-[0-9]{1,5})?(?:[ ,]+[0-9]{1,5}(?:-[0-9]{1,5})?)*")


@dataclass
class PlainAsker:
    """Asks line by line; `read` and `write` are stdin and stdout where nothing else is given."""

    read: TextIO = field(default_factory=lambda: sys.stdin)
    write: TextIO = field(default_factory=lambda: sys.stdout)
    _ends: int = 0

    def choose(self, title: str, choices: Sequence[Choice[T] | Heading], *, default: T | None = None) -> T:
        """One of several, by its number or a part of its name."""
        numbered = _numbered(choices)
        usual = next((n for n, one in numbered.items() if default is not None and one.value == default), None)
        self._list(title, choices, numbered)
        while True:
            typed = self._line("Number", "" if usual is None else str(usual))
            if typed == "?":
                self._list(title, choices, numbered)
                continue
            found = _find(typed or str(usual or ""), numbered)
            if isinstance(found, str):
                self._tell(found)
            elif found.barred:
                self._tell(f"{found.label} cannot be chosen: {found.barred}")
            else:
                return found.value

    def pick(
        self,
        title: str,
        choices: Sequence[Choice[T] | Heading],
        *,
        chosen: Collection[T] = (),
        check: Callable[[list[T]], str] | None = None,
        explain: Callable[[list[T]], str] | None = None,
    ) -> list[T]:
        """Any number of several: numbers such as `1 3-4` toggle, an empty line is done."""
        numbered = _numbered(choices)
        on = {number for number, one in numbered.items() if one.value in chosen and not one.barred}
        self._list(title, choices, numbered, on)
        while True:
            values = [numbered[number].value for number in sorted(on)]
            self._tell(f"chosen: {', '.join(numbered[number].label for number in sorted(on)) or 'none'}")
            if explain is not None and (words := explain(values)):
                self._tell(words)
            typed = self._line("Numbers to switch on or off, such as 1 3-4; nothing when done")
            if typed == "?":
                self._list(title, choices, numbered, on)
            elif typed:
                self._toggle(typed, numbered, on)
            elif complaint := check(values) if check is not None else "":
                self._tell(complaint)
            else:
                return values

    def text(
        self,
        title: str,
        *,
        default: str = "",
        check: Check | None = None,
        words: Sequence[str] = (),
    ) -> str:
        """A line of text; an empty one is the default, `-` none where there is one."""
        self._tell(title)
        if words:
            self._tell(f"for example {', '.join(words[:8])}")
        while True:
            typed = self._joined(self._line("", default, clearable=True))
            if typed == "?":
                self._tell(title)
                continue
            answer = "" if default and typed == "-" else typed or default
            complaint = complain(answer, check)
            if not complaint:
                return answer
            self._tell(complaint)

    def path(self, title: str, *, default: str = "", check: Check | None = None, folders: bool = False) -> str:
        """A path; `~` is expanded."""

        def expanded(text: str) -> str:
            return check(os.path.expanduser(text)) if check else ""  # noqa: PTH111 - pathlib drops what it deems needless

        kind = " (a folder)" if folders and "folder" not in title.lower() else ""
        return os.path.expanduser(self.text(title + kind, default=default, check=expanded))  # noqa: PTH111

    def confirm(self, title: str, *, default: bool = True) -> bool:
        """Yes or no."""
        self._tell(title)
        while True:
            typed = self._line("y or n", "y" if default else "n").lower()
            if typed == "?":
                self._tell(title)
            elif typed in {"", "y", "yes", "n", "no"}:
                return default if not typed else typed in {"y", "yes"}
            else:
                self._tell("type y or n")

    def show(self, lines: Iterable[Line]) -> None:
        """Lines of a view."""
        for line in lines:
            self._put(clean(paint(line, colour=False)))

    def say(self, text: str) -> None:
        """Sentences."""
        self._tell(text)

    def pause(self) -> None:
        """Until Enter."""
        self._put("Enter goes on: ", end="")
        with suppress(Back):  # the end of input is no way back from what was read
            self._read()

    def _list(
        self,
        title: str,
        choices: Sequence[Choice[Any] | Heading],
        numbered: dict[int, Choice[Any]],
        on: Collection[int] | None = None,
    ) -> None:
        numbers = {id(choice): number for number, choice in numbered.items()}
        self._put("")
        self._tell(title)
        for entry in choices:
            if isinstance(entry, Heading):
                self._tell(f"{entry.text}:")
                continue
            number = numbers[id(entry)]
            state = "" if on is None or entry.barred else ("on, " if number in on else "off, ")
            why = f": cannot be chosen: {entry.barred}" if entry.barred else f": {entry.hint}" if entry.hint else ""
            self._tell(f"{number}. {state}{entry.label}{why}")

    def _toggle(self, typed: str, numbered: dict[int, Choice[Any]], on: set[int]) -> None:
        numbers = _ranges(typed)
        unknown = [number for number in numbers if number not in numbered]
        if not numbers or unknown:
            what = f"there is no {unknown[0]}" if unknown else "that is no number"
            self._tell(f"{what}; type numbers from 1 to {len(numbered)}, such as 1 or 1-2")
            return
        for number in numbers:
            if numbered[number].barred:
                self._tell(f"{numbered[number].label} cannot be chosen: {numbered[number].barred}")
            else:
                on ^= {number}

    def _line(self, prompt: str, default: str = "", *, clearable: bool = False) -> str:
        """What was typed, stripped. Raises Back."""
        usual = f"[{clean(default)}{'; - for none' if clearable and default else ''}]" if default else ""
        self._put(" ".join(filter(None, (prompt, usual, "(< back, ? again): "))), end="")
        typed = self._read().strip()
        if typed == "<":
            raise Back
        return typed

    def _joined(self, typed: str) -> str:
        """A line, with those that it says follow, as a shell reads a command that is pasted. Raises Back."""
        while typed.endswith("\\"):
            self._put("goes on: ", end="")
            typed = f"{typed[:-1].rstrip()} {self._read().strip()}"
        return typed

    def _read(self) -> str:
        """A line. Raises Back at its end, and KeyboardInterrupt where nobody is there."""
        line = self.read.readline()
        if line:
            self._ends = 0
            return line
        self._put("")
        self._ends += 1
        if self._ends > _PATIENCE:
            raise KeyboardInterrupt
        raise Back

    def _tell(self, text: str) -> None:
        for line in text.split("\n"):
            self._put(clean(line))

    def _put(self, text: str, end: str = "\n") -> None:
        self.write.write(text + end)
        self.write.flush()


def _numbered(choices: Iterable[Choice[T] | Heading]) -> dict[int, Choice[T]]:
    return dict(enumerate((entry for entry in choices if isinstance(entry, Choice)), 1))


def _find(typed: str, numbered: dict[int, Choice[T]]) -> Choice[T] | str:
    """What was meant by a number or a part of a name, or why nothing was."""
    if typed.isascii() and typed.isdecimal() and len(typed) < 6:
        found = numbered.get(int(typed))
        return found if found is not None else f"there is no {typed}; type a number from 1 to {len(numbered)}"
    if not typed:
        return f"type a number from 1 to {len(numbered)}"
    near = {number: one for number, one in numbered.items() if typed.casefold() in one.label.casefold()}
    if len(near) == 1:
        return next(iter(near.values()))
    if near:
        return "several are called so: " + ", ".join(f"{number}. {one.label}" for number, one in near.items())
    return f"nothing is called so; type a number from 1 to {len(numbered)}"


def _ranges(typed: str) -> list[int]:
    """The numbers of `1 3-4`; none where it is something else."""
    if not _NUMBERS.fullmatch(typed):
        return []
    numbers: list[int] = []
    for part in re.split(r"[ ,]+", typed):
        first, _, last = part.partition("-")
        numbers += range(int(first), int(last or first) + 1)
    return list(dict.fromkeys(numbers))
