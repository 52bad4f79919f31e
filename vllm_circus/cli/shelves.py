"""What the commands for saved configurations, profiles and shortcuts have in common.

Each family hands in what is its own: the shelf, and who may not be touched. Imports of the stores are inside of the
functions, since building the schema takes longer than help and completion may.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from vllm_circus.cli.common import STDOUT, Session, instance_option, print_lines, say, terminal_width
from vllm_circus.cli.completing import files, named
from vllm_circus.cli.lazy import GuessingGroup
from vllm_circus.cli.sure import confirm

if TYPE_CHECKING:
    from vllm_circus.cli.porting import Kind
    from vllm_circus.paths import Instance
    from vllm_circus.stores.shelf import Entry, Shelf
    from vllm_circus.view.table import Column, Line

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Family:
    """One kind of what is kept.

    Attributes:
        noun: what one of them is called.
        command: the group of commands.
        shelf: where they are.
        guard: raises CircusError where that one may not be edited, or with True not be renamed or removed.
        after: called with a name after its file was changed by hand.
        lost: says what goes with one that is removed, beside its file; empty where nothing does.
        follow: called with the old name and the new one, which is empty where it was removed.
    """

    noun: str
    command: str
    shelf: Callable[[Instance], Shelf[Any]]
    guard: Callable[[Instance, str, bool], None]
    after: Callable[[Instance, str], None]
    lost: Callable[[Instance, str], str] = lambda _instance, _name: ""
    follow: Callable[[Instance, str, str], None] = lambda _instance, _old, _new: None

    def rename(self, instance: Instance, old: str, new: str) -> None:
        """Give it another name, and what belongs to it. Raises CircusError as the shelf does."""
        self.shelf(instance).rename(old, new)
        self.follow(instance, old, new)

    def remove(self, instance: Instance, name: str) -> None:
        """Remove it, and what belongs to it. Raises CircusError as the shelf does."""
        self.shelf(instance).remove(name)
        self.follow(instance, name, "")

    def with_lost(self, instance: Instance, name: str) -> str:
        """One of them and what goes with it, for a question and its answer."""
        lost = self.lost(instance, name)
        return f"{name} and {lost}" if lost else name


def group_of(command: str, text: str) -> click.Group:
    """A group of commands that shows its help when it is called alone."""

    @click.group(name=command, cls=GuessingGroup, help=text, invoke_without_command=True)
    @instance_option
    @click.pass_context
    def group(context: click.Context) -> None:
        if context.invoked_subcommand is None:
            click.echo(context.get_help(), err=True)
            context.exit(2)

    return group


def name_argument(family: Family, *, several: bool = False, name: str = "name") -> Callable[[F], F]:
    """Adds NAME, which the shell completes from what is kept."""

    complete = named(lambda context: family.shelf(context.ensure_object(Session).instance).names())
    metavar = "NAME..." if several else name.upper()
    return click.argument(name, metavar=metavar, nargs=-1 if several else 1, required=True, shell_complete=complete)


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
yes_option = click.option("-y", "--yes", is_flag=True, help="Do it without asking.")
output_option = click.option(
    "--output", metavar="FILE", shell_complete=files, help="Write it there, mode 0600, instead of to stdout (-)."
)
replace_option = click.option("--replace", is_flag=True, help="Take the place of one of that name.")


# -- what all of them do -----------------------------------------------------------------------------------------------


def rename(instance: Instance, family: Family, old: str, new: str) -> None:
    """Raises CircusError where it may not be renamed, is unknown, or the new name is taken."""
    family.guard(instance, old, True)
    family.rename(instance, old, new)
    say(f"{family.noun} {old} is called {new} now")


def remove(instance: Instance, family: Family, names: Sequence[str], *, yes: bool) -> None:
    """Remove them after asking, all or none. Raises CircusError where one may not be removed or is unknown."""
    shelf = family.shelf(instance)
    for name in names:
        family.guard(instance, name, True)
        shelf.need(name)
    shown = {name: family.with_lost(instance, name) for name in names}
    if not yes and not _sure(f"remove {family.noun} {', '.join(shown.values())}?"):
        say("nothing was removed")
        return
    for name in names:
        family.remove(instance, name)
        say(f"removed {family.noun} {shown[name]}")


def edit(instance: Instance, family: Family, name: str) -> None:
    """Have the file edited; it is checked before it takes the old one's place. Raises CircusError."""
    from vllm_circus.cli.editing import edit_text

    family.guard(instance, name, False)
    shelf = family.shelf(instance)
    text = shelf.read_text(name)

    def keep(edited: str) -> None:
        shelf.write_text(name, edited, instead_of=text)

    if not edit_text(instance, f"{family.noun}-{name}", text, keep):
        say("nothing was changed")
        return
    say(f"changed {shelf.path(name)}")
    family.after(instance, name)


def _sure(question: str, about: str = "") -> bool:
    """Whether the operator says yes. Raises UsageError where nobody is there to be asked."""
    if not sys.stdin.isatty():
        raise click.UsageError(f"{about}nobody is here to be asked: say --yes")
    return confirm(question, default=False)


def add_common(group: click.Group, family: Family) -> None:
    """Gives a group the commands `edit`, `rename` and `rm`."""

    @group.command("edit", help=f"Edit a {family.noun} with $VISUAL or $EDITOR. It is checked before it is taken.")
    @name_argument(family)
    @instance_option
    @click.pass_obj
    def _edit(session: Session, name: str) -> None:
        edit(session.instance, family, name)

    @group.command("rename", help=f"Give a {family.noun} another name.")
    @name_argument(family, name="old")
    @click.argument("new")
    @instance_option
    @click.pass_obj
    def _rename(session: Session, old: str, new: str) -> None:
        rename(session.instance, family, old, new)

    @group.command("rm", help=f"Remove {family.noun}s.")
    @name_argument(family, several=True, name="names")
    @yes_option
    @instance_option
    @click.pass_obj
    def _remove(session: Session, names: tuple[str, ...], *, yes: bool) -> None:
        remove(session.instance, family, names, yes=yes)


# -- showing -----------------------------------------------------------------------------------------------------------


def print_json(value: object) -> None:
    """One JSON document to stdout."""
    click.echo(json.dumps(value, indent=2))


def print_table(columns: Sequence[Column], rows: Sequence[Line]) -> None:
    """Rows that fit the terminal, to stdout."""
    from vllm_circus.view.table import layout

    print_lines((line, True) for line in layout(columns, rows, terminal_width()))


def say_broken(entries: Iterable[Entry[Any]]) -> None:
    """What is wrong with files that cannot be read: they are no fault of the others."""
    from vllm_circus.stores.shelf import faults_of

    for entry in entries:
        for fault in faults_of(entry.error) if entry.error else ():
            say(f"warning: {fault}")


def faults_of(entry: Entry[Any]) -> list[str]:
    """The same for JSON."""
    from vllm_circus.stores import shelf

    return list(shelf.faults_of(entry.error)) if entry.error else []


def options_words(options: Mapping[str, object]) -> str:
    """Engine options in a few words for a table."""
    from vllm_circus.logline import clean
    from vllm_circus.stores.yamltext import dump_flow

    return clean(", ".join(f"{key}: {dump_flow(value)}" for key, value in options.items())) or "-"


def when(seconds: float) -> str:
    """A time as people here write it; it sorts."""
    import time

    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds)) if seconds else "-"


# -- import and export -------------------------------------------------------------------------------------------------


def import_file(instance: Instance, kind: Kind, file: str, *, name: str | None, replace: bool, dry_run: bool) -> None:
    """Take over what a file has of a kind, and tell all about it. Raises CircusError before anything is written."""
    from vllm_circus.cli.porting import put_away, read_file, take_in
    from vllm_circus.exchange.read import read_foreign

    intake = take_in(instance, kind, read_foreign(*read_file(file)), name=name, replace=replace)
    for sentence in intake.told:
        click.echo(sentence)
    if dry_run:
        say("nothing was written")
    else:
        put_away(intake, replace=replace)


def add_porting(group: click.Group, kind: Kind, family: Family) -> None:
    """Gives a group the commands `import` and `export` of entries."""

    @group.command(
        "import", help=f"Take {kind}s over from FILE (- is stdin): an export of ours, or a file of vllm-cli."
    )
    @click.argument("file", shell_complete=files)
    @click.option("--name", metavar="NAME", help="What a single one is called here.")
    @replace_option
    @click.option("--dry-run", is_flag=True, help="Only show what would be taken over, and what not.")
    @instance_option
    @click.pass_obj
    def _import(session: Session, file: str, *, name: str | None, replace: bool, dry_run: bool) -> None:
        import_file(session.instance, kind, file, name=name, replace=replace, dry_run=dry_run)

    @group.command("export", help=f"Write {kind}s as one file for another machine. No secret is in it.")
    @name_argument(family, several=True, name="names")
    @output_option
    @yes_option
    @instance_option
    @click.pass_obj
    def _export(session: Session, names: tuple[str, ...], *, output: str | None, yes: bool) -> None:
        from vllm_circus.cli.porting import export_entries

        text, told = export_entries(session.instance, kind, names)
        write_export(text, output, told, yes=yes)


def write_export(text: str, output: str | None, told: Iterable[str], *, yes: bool) -> None:
    """An export to stdout, or to a file for its owner alone, and what is not in it to stderr.

    A file that is there is asked about, unless `yes`. Raises CircusError, and UsageError where nobody can be asked.
    """
    path = None if output is None or output == STDOUT else Path(output)
    if path is not None and not yes and not _may_replace(path):
        say("nothing was written")
        return
    for sentence in told:
        say(sentence)
    if path is None:
        click.echo(text, nl=False)
        return
    put_file(path, text)
    say(f"wrote {path}")


def _may_replace(path: Path) -> bool:
    """Whether the file may be written: it is not there, nothing that would be lost, or somebody says so."""
    if not os.path.lexists(path) or (path.exists() and not path.is_file()):
        return True
    return _sure(f"{path} exists already; replace it?", f"{path} exists already, and ")


def put_file(path: Path, text: str) -> None:
    """Write a file of somebody's choice, for its owner alone. Raises CircusError."""
    from vllm_circus.files import file_errors, write_atomic

    with file_errors():
        if path.exists() and not path.is_file():  # /dev/stdout, a pipe: nothing may take its place
            path.write_text(text, encoding="utf-8")
        else:
            write_atomic(path, text, mode=0o600)
