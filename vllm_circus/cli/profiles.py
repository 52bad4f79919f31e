"""`vllm-circus profiles`: bundles of engine options, built in and the operator's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from vllm_circus.cli import completing, shelves
from vllm_circus.cli.common import Session, instance_option, say, words
from vllm_circus.cli.shelves import Family
from vllm_circus.cli.values import engine_options, environment_of, options_of
from vllm_circus.errors import CircusError

if TYPE_CHECKING:
    from pathlib import Path

    from vllm_circus.config.models import Profile
    from vllm_circus.paths import Instance
    from vllm_circus.stores.shelf import Entry, Shelf
    from vllm_circus.view.table import Line


class BuiltIn(CircusError):
    """A built-in profile is to be changed."""

    exit_code = 2


def _shelf(instance: Instance) -> Shelf[Profile]:
    from vllm_circus.stores.shelf import profile_shelf

    return profile_shelf(instance, say)


def _guard(instance: Instance, name: str, taken_away: bool) -> None:
    """Built-in ones are nobody's to change; those that are in use are told of before they go."""
    from vllm_circus.config.profiles import BUILTIN

    if name in BUILTIN and not _shelf(instance).holds(name):
        hint = f"`vllm-circus profiles new NAME --from {name}` makes one like it"
        raise BuiltIn(f"the profile {name!r} is built in and cannot be changed", hint=hint)
    if taken_away and (users := users_of(instance, name)):
        say(f"warning: the profile {name} is used by {', '.join(users)}, which cannot start without it")


def _after(instance: Instance, name: str) -> None:
    """Tell who uses it: a running set knows nothing of the change."""
    if users := users_of(instance, name):
        running = _running_with(instance, name) or [instance]
        commands = ", ".join(f"`{words(each, 'reload')}`" for each in running)
        say(f"it is used by {', '.join(users)}; a set that runs takes it with {commands}")


def users_of(instance: Instance, name: str) -> list[str]:
    """Who names a profile: running sets, saved configurations and shortcuts, as words for a sentence."""
    from vllm_circus.config.profiles import used_profiles
    from vllm_circus.stores.shelf import configuration_shelf, shortcut_shelf

    running = [
        "the running set" if each == instance else f"the running set of instance {each.name}"
        for each in _running_with(instance, name)
    ]
    saved = [
        f"configuration {entry.name}"
        for entry in configuration_shelf(instance).entries()
        if entry.value and name in used_profiles(entry.value.loaded.config)
    ]
    shortcuts = shortcut_shelf(instance).entries()
    return (
        running
        + saved
        + [f"shortcut {entry.name}" for entry in shortcuts if entry.value and entry.value.profile == name]
    )


def _running_with(instance: Instance, name: str) -> list[Instance]:
    """The instances whose running set uses the profile: all of them share the profiles."""
    from vllm_circus.cli.common import running_beside, running_outline

    outlines = ((each, running_outline(each)) for each in (instance, *running_beside(instance)))
    return [each for each, outline in outlines if outline and any(model.profile == name for model in outline.models)]


FAMILY = Family("profile", "profiles", _shelf, _guard, _after)
profiles = shelves.group_of("profiles", "Keep bundles of engine options, which every models file may name.")
shelves.add_common(profiles, FAMILY)
shelves.add_porting(profiles, "profile", FAMILY)


@profiles.command("list")
@shelves.json_option
@instance_option
@click.pass_obj
def list_(session: Session, *, as_json: bool) -> None:
    """List the profiles, the operator's own first."""
    from vllm_circus.config.profiles import BUILTIN

    entries = _shelf(session.instance).entries()
    hidden = {entry.name for entry in entries}
    built_in = {name: profile for name, profile in BUILTIN.items() if name not in hidden}
    if as_json:
        documents = [_document(entry.name, entry.value, entry) for entry in entries]
        shelves.print_json([*documents, *(_document(name, profile, None) for name, profile in built_in.items())])
        return
    from vllm_circus.view.table import Column

    columns = (Column("NAME"), Column("KIND", rank=2), Column("FOR", rank=1), Column("OPTIONS", rank=3))
    rows = [_row(entry.name, entry.value, "own" if entry.value else "broken") for entry in entries]
    rows += [_row(name, profile, "built in") for name, profile in built_in.items()]
    shelves.print_table(columns, rows)
    shelves.say_broken(entries)


@profiles.command()
@click.argument("name", shell_complete=completing.profiles)
@shelves.json_option
@instance_option
@click.pass_obj
def show(session: Session, name: str, *, as_json: bool) -> None:
    """Print a profile, of one's own or built in."""
    from vllm_circus.config.profiles import BUILTIN
    from vllm_circus.stores.yamltext import dump_section

    shelf = _shelf(session.instance)
    if name in BUILTIN and not shelf.holds(name):
        document, text = _document(name, BUILTIN[name], None), dump_section(BUILTIN[name])
    else:
        shelf.need(name, besides=BUILTIN)
        text = shelf.read_text(name)
        (entry,) = (entry for entry in shelf.entries() if entry.name == name)
        document = _document(name, entry.value, entry)
    if as_json:
        shelves.print_json(document | {"text": text})
    else:
        click.echo(text, nl=False)


@profiles.command()
@click.argument("name")
@click.option(
    "--from",
    "base",
    metavar="PROFILE",
    shell_complete=completing.profiles,
    help="Begin with that one's options, built in or own.",
)
@click.option("--description", metavar="TEXT", help="One line for lists.")
@engine_options
@shelves.replace_option
@instance_option
@click.pass_obj
def new(
    session: Session,
    name: str,
    *,
    base: str | None,
    description: str | None,
    args: tuple[str, ...],
    env: tuple[str, ...],
    replace: bool,
) -> None:
    """Make a profile. Options of --arg win over those of --from; `--arg KEY=null` takes one away again."""
    profile = make_profile(session.instance, base, description, args, env)
    say(f"wrote {write_profile(session.instance, name, profile, replace=replace)}")


def make_profile(
    instance: Instance, base: str | None, description: str | None, args: Sequence[str], env: Sequence[str]
) -> dict[str, Any]:
    """What stands in a new profile's file. Raises UnknownEntry where there is no profile `base`."""
    from vllm_circus.config.profiles import BUILTIN
    from vllm_circus.stores.yamltext import plain

    shelf = _shelf(instance)
    values: dict[str, Any] = {}
    if base is not None and base in BUILTIN and not shelf.holds(base):
        values = plain(BUILTIN[base])
    elif base is not None:
        shelf.need(base, besides=BUILTIN)
        values = plain(shelf.read(base))
    values |= {"description": description} if description is not None else {}
    values |= {"args": {**values.get("args", {}), **options_of(args)}} if args else {}
    return values | ({"env": {**values.get("env", {}), **environment_of(env)}} if env else {})


def write_profile(instance: Instance, name: str, values: dict[str, Any], *, replace: bool = False) -> Path:
    """Keep a profile under that name. Raises EntryExists, and ConfigError with every fault of it."""
    from vllm_circus.stores.yamltext import dump_block

    return _shelf(instance).write_text(name, dump_block(values), replace=replace)


def _document(name: str, profile: Profile | None, entry: Entry[Profile] | None) -> dict[str, Any]:
    from vllm_circus.config.models import Profile

    found = profile or Profile()
    return {
        "name": name,
        "built_in": entry is None,
        "path": str(entry.path) if entry else None,
        "description": found.description,
        "args": found.args,
        "env": found.env,
        "faults": shelves.faults_of(entry) if entry else [],
    }


def _row(name: str, profile: Profile | None, kind: str) -> Line:
    from vllm_circus.logline import clean
    from vllm_circus.view.table import Cell

    first = Cell(clean(name), "bold")
    if profile is None:
        return first, Cell(kind), Cell("cannot be read", "bad"), Cell("-")
    return first, Cell(kind), Cell(clean(profile.description) or "-"), Cell(shelves.options_words(profile.args))
