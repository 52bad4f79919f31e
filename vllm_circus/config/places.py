"""Where in a models file something stands: a path of keys and indices, and how it is written for people."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from vllm_circus.errors import Fault

#: Keys and list indices from the top of the document: `("models", 2, "port")`.
Place = tuple[str | int, ...]

#: Characters of a value that a message shows whole: a model's name may have as many. Of longer ones it shows less.
_WHOLE = 64
_BEGINNING = 60
#: Characters of a text that is told to be written another way: cut, it would not be the same.
_QUOTABLE = 40

_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")


def show_place(place: Place) -> str:
    """`models[2].args.max-model-len`; keys that are no plain words stand as `['…']`."""
    text = ""
    for step in place:
        if isinstance(step, int):
            text += f"[{step}]"
        elif _PLAIN_KEY.fullmatch(step) and len(step) <= 80:
            text += f".{step}" if text else step
        else:
            text += f"[{show_value(step)}]"
    return text


def show_value(value: object) -> str:
    """A value for a message: as Python spells it, harmless on a terminal.

    A long one is cut to 60 characters and told to be: how long it is may be all that is wrong with it.
    """
    text = repr(value[: _WHOLE + 1] if isinstance(value, str) else value)
    length = len(value) if isinstance(value, str) else len(text)
    return text if len(text) <= _WHOLE + len("''") else _cut(text[: _BEGINNING + len("'")], length)


def shortened(text: str) -> str:
    """Plain text for a message, cut as `show_value` cuts."""
    return text if len(text) <= _WHOLE else _cut(text[:_BEGINNING], len(text))


def _cut(beginning: str, length: int) -> str:
    return f"{beginning}… ({length:,} characters)"


def quote_it(text: str) -> str:
    """What to do with a value that has to be text for YAML: `quote it: "no"`."""
    return f'quote it: "{text}"' if len(text) <= _QUOTABLE else "quote it"


def harmless(text: str) -> str:
    """Text with everything that is not printable spelled out: files are written by anybody, terminals obey."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def make_fault(file: str, line: int, place: Place, message: str, fix: str = "") -> Fault:
    """Something wrong at a place, in words that are safe to show."""
    return Fault(harmless(file), line, show_place(place), harmless(message), harmless(fix))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`did you mean 'port'?`, or nothing where no known word is near."""
    near = nearest(word, known)
    return f"did you mean {near!r}?" if near else ""


def nearest(word: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """The known word that somebody may have meant: one that begins like that, else one that resembles it, or none."""
    word, words = word[:80], list(known)
    begun = [each for each in words if each.startswith(word)] if len(word) > 1 else []
    near = difflib.get_close_matches(word, begun or words, n=1, cutoff=0.0 if begun else cutoff)
    return near[0] if near else ""
