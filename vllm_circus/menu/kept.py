"""The menu of one kind of thing that an operator keeps: profiles, shortcuts, saved configurations.

Rules: the list is read anew each time, so that what somebody else adds, changes or removes is seen; what is broken is
listed with its fault, and can be mended or removed; whatever goes wrong is told, and the list follows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from vllm_circus.menu.ask import Choice, Heading
from vllm_circus.menu.trying import attempt

if TYPE_CHECKING:
    from pydantic import BaseModel

    from vllm_circus.cli.shelves import Family
    from vllm_circus.menu.ask import Check
    from vllm_circus.menu.context import Context
    from vllm_circus.stores.shelf import Entry, Shelf
    from vllm_circus.view.table import Line

T = TypeVar("T")


class Moved(Exception):
    """What was looked at has another name now; an empty one where it is gone."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


@dataclass(frozen=True)
class Deed:
    """Something to do with one of them, by its name."""

    label: str
    hint: str
    run: Callable[[Context, str], None]


@dataclass(frozen=True)
class Kind(Generic[T]):
    """One kind of things.

    Attributes:
        title: the menu's.
        shelf: where they are kept.
        family: what the commands for them go by: who may not be taken away, and what is told after a change.
        summary: one line about a value, for the list.
        details: everything about one, by its name.
        adding: labels, hints and functions of what makes new ones.
        deeds: what can be done with one besides showing, renaming and removing it.
        builtin: what comes with the program under a name; `builtin_deeds` is what can be done with those.
    """

    title: str
    shelf: Shelf[T]
    family: Family
    summary: Callable[[T], str]
    details: Callable[[str, T], Iterable[Line]]
    adding: tuple[tuple[str, str, Callable[[Context], None]], ...]
    deeds: tuple[Deed, ...]
    builtin: Mapping[str, T] = field(default_factory=dict)
    builtin_deeds: tuple[Deed, ...] = ()


def open_kept(context: Context, kind: Callable[[], Kind[Any]]) -> None:
    """The list, until somebody goes back; `kind` is asked anew for each look. Raises CircusError."""
    last: object = None
    while True:
        now = kind()
        listed = list(_listed(now))
        between = Heading("or" if listed else "none is saved yet")
        choices: list[Choice[Any] | Heading] = [*listed, between, *_adding(now), Choice(None, "Back")]
        last = context.asker.choose(now.title, choices, default=last)
        if last is None:
            return
        if isinstance(last, int):
            attempt(context, now.adding[last][2])
        else:
            attempt(context, open_one, kind, str(last))


def open_one(context: Context, kind: Callable[[], Kind[Any]], name: str) -> None:
    """What can be done with one of them, until somebody goes back or it is gone. Raises Back."""
    position = 0
    while True:
        now = kind()
        own = now.shelf.holds(name)
        if not own and name not in now.builtin:
            context.asker.say(f"There is no {now.shelf.kind} {name!r} any more.")
            return
        deeds = [_showing(now), *(now.deeds if own else now.builtin_deeds), *(_always(now) if own else ())]
        choices = [Choice(number, deed.label, deed.hint) for number, deed in enumerate(deeds)]
        whose = "" if own else ", which comes with the program"
        title = f"The {now.shelf.kind} {name!r}{whose}"
        position = context.asker.choose(title, [*choices, Choice(-1, "Back")], default=position)
        if position < 0:
            return
        try:
            attempt(context, deeds[position].run, name)
        except Moved as moved:
            if not moved.name:
                return
            name = moved.name


def as_written(name: str, section: BaseModel) -> Iterator[Line]:
    """A profile or a shortcut as it stands in its file."""
    from vllm_circus.stores.yamltext import dump_section
    from vllm_circus.view.table import Cell

    yield (Cell(name, "bold"),)
    yield from ((Cell(f"  {line}"),) for line in dump_section(section).splitlines())


def ask_name(context: Context, shelf: Shelf[Any], default: str = "", *, but: str = "") -> str:
    """A name that is free on the shelf, or that is `but`. Raises Back."""
    return context.asker.text(f"Name of the {shelf.kind}", default=default, check=name_check(shelf, but=but))


def name_check(shelf: Shelf[Any], *, but: str = "") -> Check:
    """Says what is wrong with a name for something new on the shelf."""

    def check(name: str) -> str:
        from vllm_circus.errors import CircusError

        try:
            taken = shelf.path(name).exists()
        except CircusError as error:
            return error.hint or str(error)
        return f"there is a {shelf.kind} {name!r} already" if taken and name != but else ""

    return check


def free_name(shelf: Shelf[Any], wanted: str, *, besides: Iterable[str] = ()) -> str:
    """The wanted name, or the first of `NAME-2`, `NAME-3` … that is free; empty where it cannot be used at all."""
    taken = {*shelf.names(), *besides}
    names = (wanted if number == 1 else f"{wanted[:60]}-{number}" for number in range(1, len(taken) + 2))
    found = next(name for name in names if name not in taken)
    return "" if name_check(shelf)(found) else found


def _listed(kind: Kind[Any]) -> Iterator[Choice[Any] | Heading]:
    entries = kind.shelf.entries()
    if kind.builtin and entries:
        yield Heading("your own")
    check = name_check(kind.shelf, but="")
    for entry in entries:
        usable = kind.shelf.holds(entry.name)
        yield Choice(
            entry.name, entry.name, _hint(kind, entry), "" if usable else f"rename the file: {check(entry.name)}"
        )
    hidden = {entry.name for entry in entries}
    if kind.builtin:
        yield Heading("built in")
    yield from (Choice(name, name, kind.summary(one)) for name, one in kind.builtin.items() if name not in hidden)


def _hint(kind: Kind[Any], entry: Entry[Any]) -> str:
    if entry.value is None:
        from vllm_circus.stores.shelf import faults_of

        return f"broken: {faults_of(entry.error)[0] if entry.error else 'it cannot be read'}"
    return kind.summary(entry.value)


def _adding(kind: Kind[Any]) -> Iterator[Choice[Any] | Heading]:
    yield from (Choice(number, label, hint) for number, (label, hint, _) in enumerate(kind.adding))


def _showing(kind: Kind[Any]) -> Deed:
    def show(context: Context, name: str) -> None:
        own = kind.shelf.holds(name) or name not in kind.builtin
        value = kind.shelf.read(name) if own else kind.builtin[name]
        context.asker.show(kind.details(name, value))
        context.asker.pause()

    return Deed("Show", "everything about it", show)


def _always(kind: Kind[Any]) -> tuple[Deed, ...]:
    noun, shelf, family = kind.shelf.kind, kind.shelf, kind.family

    def edit(context: Context, name: str) -> None:
        from vllm_circus.cli.shelves import edit as edit_file

        edit_file(context.instance, family, name)

    def rename(context: Context, name: str) -> None:
        family.guard(context.instance, name, True)
        new = ask_name(context, shelf, name, but=name)
        if new != name:
            family.rename(context.instance, name, new)
            context.asker.say(f"The {noun} {name!r} is called {new!r} now.")
            raise Moved(new)

    def remove(context: Context, name: str) -> None:
        family.guard(context.instance, name, True)
        family.after(context.instance, name)
        lost = family.lost(context.instance, name)
        also = f" and {lost}" if lost else ""
        if context.asker.confirm(f"Remove the {noun} {name!r}{also} for good?", default=False):
            family.remove(context.instance, name)
            context.asker.say(f"The {noun} {name!r} is gone.")
            raise Moved("")

    return (
        Deed("Edit the file", "in your own editor; it is checked before it is taken", edit),
        Deed("Rename", "give it another name", rename),
        Deed("Remove", "for good", remove),
    )
