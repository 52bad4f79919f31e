"""`vllm-circus settings`: what the program remembers for its operator."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vllm_circus.cli import shelves
from vllm_circus.cli.common import Session, instance_option, say
from vllm_circus.cli.completing import named
from vllm_circus.errors import CircusError
from vllm_circus.paths import expanded

if TYPE_CHECKING:
    from pydantic import BaseModel

    from vllm_circus.paths import Instance
    from vllm_circus.stores.schema import Settings
    from vllm_circus.view.table import Line

#: Settings that hold paths: what is relative begins where the command is typed.
_PATHS = frozenset({"model_folders", "token_file", "proxy.keys.file", "proxy.tls.certificate", "proxy.tls.key"})

#: Those of them that hold secrets: nobody but the owner may read the file.
_SECRETS = frozenset({"token_file", "proxy.keys.file", "proxy.tls.key"})

settings = shelves.group_of("settings", "Show and change what the program remembers: model folders, proxy defaults.")


def _keys(_context: click.Context) -> Iterator[str]:
    """Every setting's key."""
    from vllm_circus.stores.schema import Settings

    return (each.key for each in all_settings(Settings()))


class UnknownKey(CircusError):
    """There is no such setting."""

    exit_code = 4


class OpenToOthers(CircusError):
    """A file of secrets may be read by others."""

    exit_code = 2


@dataclass(frozen=True)
class Setting:
    """One setting: its dotted key, its value, whether that was set, and what it means."""

    key: str
    value: Any
    is_set: bool
    meaning: str
    is_list: bool = False


@settings.command()
@click.argument("key", required=False, shell_complete=named(_keys))
@shelves.json_option
@instance_option
@click.pass_obj
def show(session: Session, key: str | None, *, as_json: bool) -> None:
    """Show every setting with its meaning, or the value of KEY alone."""
    from vllm_circus.stores.settings import read_settings

    found = {each.key: each for each in all_settings(read_settings(session.instance))}
    if key is not None:
        value = _known(key, found).value
        shelves.print_json(value) if as_json else click.echo(_shown(value))
    elif as_json:
        shelves.print_json({each.key: {"value": each.value, "set": each.is_set} for each in found.values()})
    else:
        _print(list(found.values()))


@settings.command("set")
@click.argument("key", shell_complete=named(_keys))
@click.argument("values", metavar="VALUE...", nargs=-1, required=True)
@instance_option
@click.pass_obj
def set_(session: Session, key: str, values: tuple[str, ...]) -> None:
    """Set KEY, e.g. `settings set proxy.port 8080`. A list takes several values, a section one like '{a: 1, b: 2}'."""
    change_setting(session.instance, key, values)
    say(f"wrote {session.instance.settings}")


@settings.command()
@click.argument("key", shell_complete=named(_keys))
@instance_option
@click.pass_obj
def unset(session: Session, key: str) -> None:
    """Give KEY its default back."""
    change_setting(session.instance, key, None)
    say(f"wrote {session.instance.settings}")


def change_setting(instance: Instance, key: str, words: Sequence[str] | None) -> None:
    """Set a key to what the words say, or with None to its default.

    Raises UnknownKey, ConfigError, and OpenToOthers where it is a file of secrets that others may read.
    """
    from vllm_circus.stores.reading import parse_settings
    from vllm_circus.stores.settings import change_settings
    from vllm_circus.stores.yamltext import dump_section_values, plain

    def edit(settings: Settings) -> Settings:
        found = {each.key: each for each in all_settings(settings)}
        value = None if words is None else [_value(_settable(key, found, words), words)]
        if words is None and not _is_section(key, found):
            _known(key, found)
        values = plain(settings)
        _put(values, key.split("."), value)
        return parse_settings(dump_section_values(values).encode(), instance.settings)

    change_settings(instance, edit, say)


def _value(setting: Setting, words: Sequence[str]) -> Any:
    from vllm_circus.cli.values import plain_value

    if setting.key in _PATHS:
        paths = [str(expanded(word).absolute()) for word in words]
        if setting.key in _SECRETS:
            _check_private(Path(paths[0]))
        return paths if setting.is_list else paths[0]
    values = [plain_value(word) for word in words]
    if setting.is_list or len(values) > 1:
        return values if len(values) > 1 or not isinstance(values[0], list) else values[0]
    return values[0]


def _check_private(path: Path) -> None:
    """Raises OpenToOthers; a file that is yet to be made is none."""
    from vllm_circus.facts import Disk

    mode = Disk().mode(path)
    if mode is not None and mode & 0o077:
        hint = "name a file of mode 0600, which holds nothing else"
        raise OpenToOthers(f"{path} may be read by others (mode {mode:04o})", hint=hint)


def _put(values: dict[str, Any], path: list[str], value: list[Any] | None) -> None:
    """Set what stands at a path, or take it away, and the sections that are empty then."""
    first, *rest = path
    if rest:
        inside = values.setdefault(first, {}) or {}
        _put(inside, rest, value)
        values[first] = inside
        if not inside:
            del values[first]
    elif value is None:
        values.pop(first, None)
    else:
        values[first] = value[0]


def _is_section(key: str, found: dict[str, Setting]) -> bool:
    return any(known.startswith(f"{key}.") for known in found)


def _settable(key: str, found: dict[str, Setting], words: Sequence[str]) -> Setting:
    """The setting of that key; a section counts as one where all of it is given."""
    from vllm_circus.cli.values import plain_value

    whole = _is_section(key, found) and len(words) == 1 and isinstance(plain_value(words[0]), dict)
    return Setting(key, None, is_set=False, meaning="") if whole else _known(key, found)


def _known(key: str, found: dict[str, Setting]) -> Setting:
    if key in found:
        return found[key]
    from vllm_circus.config.places import did_you_mean

    if _is_section(key, found):
        inside = next(known for known in found if known.startswith(f"{key}."))
        raise UnknownKey(f"{key} is a section", hint=f"name one of its keys, such as {inside}")
    hint = did_you_mean(key, found) or "`vllm-circus settings show` lists them"
    raise UnknownKey(f"there is no setting {key!r}", hint=hint)


def all_settings(settings: Settings) -> Iterator[Setting]:
    """Every setting with its present value, sections by their parts."""
    yield from _of_section(settings, type(settings), "", is_set=True)


def _of_section(section: BaseModel | None, kind: type[BaseModel], prefix: str, *, is_set: bool) -> Iterator[Setting]:
    for name, field in kind.model_fields.items():
        value = getattr(section, name) if section is not None else None
        here = is_set and section is not None and name in section.model_fields_set
        inside = _section_in(field.annotation)
        if inside is not None:
            yield from _of_section(value, inside, f"{prefix}{name}.", is_set=here)
        else:
            meaning = " ".join((field.description or "").split())
            yield Setting(f"{prefix}{name}", value, here, meaning, str(field.annotation).startswith("list["))


def _section_in(annotation: Any) -> type[BaseModel] | None:
    """The section that a field holds, if it holds one."""
    from typing import get_args

    from pydantic import BaseModel

    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((part for part in get_args(annotation) if isinstance(part, type) and issubclass(part, BaseModel)), None)


def _shown(value: object) -> str:
    from vllm_circus.stores.yamltext import dump_flow

    return value if isinstance(value, str) else dump_flow(value)


def _print(found: list[Setting]) -> None:
    """A table; each meaning stands below its key where that is too wide for the terminal."""
    from vllm_circus.cli.common import print_lines, terminal_width
    from vllm_circus.view.table import Column

    columns = (Column("KEY"), Column("VALUE"), Column("MEANING"))
    width = terminal_width()
    rows = [_row(each) for each in found]
    if width is None:
        shelves.print_table(columns, rows)
    else:
        print_lines((line, False) for row in rows for line in _wrapped(row, width))


def _row(each: Setting) -> Line:
    from vllm_circus.logline import clean
    from vllm_circus.view.table import Cell

    value = Cell(clean(_shown(each.value)), "" if each.is_set else "dim")
    return Cell(each.key, "bold" if each.is_set else ""), value, Cell(each.meaning, "dim")


def _wrapped(row: Line, width: int) -> Iterator[Line]:
    from textwrap import wrap

    from vllm_circus.view.table import Cell

    key, value, meaning = row
    yield key, Cell(": "), value
    for line in wrap(meaning.text, max(width - 4, 20)):
        yield (Cell(f"    {line}", "dim"),)
