"""config.json as somebody wrote it: numbers are looked for under several names, and what is no number is told.

Rules: nothing of the file is trusted; every value has bounds, so that no file makes this program count for hours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from vllm_circus.config.places import show_value
from vllm_circus.errors import CircusError

#: No model has more of anything: parameters come from products of these.
MOST = 10**8


class BadModel(CircusError):
    """What a model's files say cannot be: the message names the file and the field."""


@dataclass(frozen=True)
class Fields:
    """A JSON object; `place` is what it is called in messages."""

    values: Mapping[str, object]
    place: str = "config.json"

    def find(self, *names: str) -> tuple[str, object]:
        """The first of these that is there and not null, with its name; `("", None)` where none is."""
        return next(((name, self.values[name]) for name in names if self.values.get(name) is not None), ("", None))

    def whole(self, *names: str, least: int = 1, most: int = MOST) -> int | None:
        """A whole number under the first of these names; None where none is there. Raises BadModel."""
        name, value = self.find(*names)
        if not name:
            return None
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            needs = f"needs a whole number from {least} to {most:,}"
            raise BadModel(f"{self.place}: {name} {needs}, not {show_value(value)}", hint="is the file whole?")
        return value

    def need(self, *names: str, most: int = MOST) -> int:
        """The same, which has to be there."""
        value = self.whole(*names, most=most)
        if value is None:
            raise BadModel(
                f"{self.place}: there is no {names[0]}", hint="is it the config.json of a language model, and whole?"
            )
        return value

    def number(self, name: str, least: float, most: float) -> float | None:
        """A number within bounds, or None."""
        value = self.values.get(name)
        usable = isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most
        return float(cast("float", value)) if usable else None

    def word(self, *names: str) -> str:
        """A text under the first of these names; empty where there is none."""
        _, value = self.find(*names)
        return value if isinstance(value, str) else ""

    def flag(self, name: str, default: bool) -> bool:
        """true or false."""
        value = self.values.get(name)
        return value if isinstance(value, bool) else default

    def section(self, name: str) -> Fields | None:
        """The object under that name, if it is one."""
        value = self.values.get(name)
        return Fields(cast("Mapping[str, object]", value), f"{self.place}: {name}") if isinstance(value, dict) else None

    def items(self, name: str) -> list[object] | None:
        """The list under that name, if it is one."""
        value = self.values.get(name)
        return value if isinstance(value, list) else None
