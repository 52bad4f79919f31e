"""A click group that imports a command when it is used, not when help is printed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, cast

import click

from vllm_circus.config.places import nearest


@dataclass(frozen=True)
class Entry:
    """One command: its name, `module:attribute`, one line for the help, and the heading it stands under."""

    name: str
    target: str
    summary: str
    heading: str


class GuessingGroup(click.Group):
    """A group that guesses what an unknown command was meant to be."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the first argument names. Raises UsageError, with a guess."""
        known = self.known_names(ctx)
        if args and args[0] not in known and not args[0].startswith("-"):
            near = nearest(args[0], known)
            guess = f"; did you mean `{near}`?" if near else ""
            raise click.UsageError(f"no such command: {args[0]}{guess}", ctx)
        return super().resolve_command(ctx, args)

    def known_names(self, ctx: click.Context) -> list[str]:
        """Every word that is a command here."""
        return self.list_commands(ctx)


class LazyGroup(GuessingGroup):
    """A group of `Entry`s, with aliases."""

    def __init__(self, *, entries: Sequence[Entry] = (), aliases: Mapping[str, str] | None = None, **rest: Any) -> None:
        super().__init__(**rest)
        self.entries = {entry.name: entry for entry in entries}
        self.aliases = dict(aliases or {})

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Every command, in the order given."""
        return list(self.entries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """The command of that name or alias, imported now."""
        entry = self.entries.get(self.aliases.get(cmd_name, cmd_name))
        if entry is None:
            return None
        module, attribute = entry.target.split(":")
        return cast("click.Command", getattr(import_module(module), attribute))

    def known_names(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Every command and alias."""
        return [*self.entries, *self.aliases]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's
        """The commands under their headings, without importing any."""
        names = {name: self._label(name) for name in self.entries}
        width = max(map(len, names.values()))
        for heading in dict.fromkeys(entry.heading for entry in self.entries.values()):
            with formatter.section(heading):
                formatter.write_dl(
                    [
                        (names[entry.name].ljust(width), entry.summary)
                        for entry in self.entries.values()
                        if entry.heading == heading
                    ]
                )

    def _label(self, name: str) -> str:
        others = [alias for alias, target in self.aliases.items() if target == name]
        return ", ".join([name, *others])
