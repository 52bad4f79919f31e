"""A record that is changed field by field: a profile, a shortcut, a model of a saved configuration.

Rules: the list shows every field with its value; nothing is kept until somebody says so, and then only what was
changed is put onto what the file says by then. Escape and Ctrl-C throw no change away unasked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vllm_circus.menu.ask import Back, Choice, throws_away
from vllm_circus.menu.trying import attempt

if TYPE_CHECKING:
    from vllm_circus.menu.context import Context

#: Asks for a field's new value, given the whole record; None takes the field away.
Ask = Callable[["Context", Mapping[str, Any]], Any]


@dataclass(frozen=True)
class Field:
    """One field: its key in the file, what it is called, what it means, and who asks for it."""

    key: str
    label: str
    hint: str
    ask: Ask


def edit_fields(
    context: Context,
    title: str,
    fields: Sequence[Field],
    record: Mapping[str, Any],
    *,
    note: Callable[[Mapping[str, Any]], str] = lambda _record: "",
) -> dict[str, Any]:
    """The record as it is when somebody keeps it; `note` says beside "Keep" what it comes to.

    Raises Back where it is given up.
    """
    values, last = dict(record), -1
    while True:
        choices = [Choice(number, _label(field, values), field.hint) for number, field in enumerate(fields)]
        choices.append(Choice(-1, "Keep", note(values) or ("as it stands above" if values != record else "unchanged")))
        choices.append(Choice(-2, "Give up", "nothing is written"))
        try:
            last = context.asker.choose(title, choices, default=last)
            if last >= 0:
                attempt(context, _change, fields[last], values)
        except (Back, KeyboardInterrupt):
            if values == record or throws_away(context.asker):
                raise
            continue
        if last == -1:
            return values
        if last == -2:
            raise Back


def line_of(title: str, key: str, *, check: Callable[[str], str] | None = None) -> Ask:
    """A field of one line of text; an empty one takes it away."""

    def ask(context: Context, record: Mapping[str, Any]) -> str | None:
        return context.asker.text(title, default=str(record.get(key) or ""), check=check) or None

    return ask


def words_of(title: str, key: str, check: Callable[[list[str]], str]) -> Ask:
    """A field of several words with blanks or commas between; none take it away."""

    def ask(context: Context, record: Mapping[str, Any]) -> list[str] | None:
        before = " ".join(map(str, record.get(key) or ()))
        answer = context.asker.text(title, default=before, check=lambda text: check(split_words(text)))
        return split_words(answer) or None

    return ask


def split_words(text: str) -> list[str]:
    """Words with blanks or commas between, each once."""
    return list(dict.fromkeys(text.replace(",", " ").split()))


def shown(value: object) -> str:
    """A field's value in a list."""
    from vllm_circus.menu.options import show_option

    match value:
        case None:
            return "-"
        case str():
            return value or "-"
        case list() if value and not isinstance(value[0], dict):
            return ", ".join(map(str, value))
        case dict():
            return ", ".join(f"{key}={show_option(one)}" for key, one in value.items()) or "-"
        case _:
            return show_option(value)


def _label(field: Field, values: Mapping[str, Any]) -> str:
    return f"{field.label}: {shown(values.get(field.key))}"


def _change(context: Context, field: Field, values: dict[str, Any]) -> None:
    answer = field.ask(context, values)
    if answer is None:
        values.pop(field.key, None)
    else:
        values[field.key] = answer
