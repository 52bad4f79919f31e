"""What the shell offers behind a command: its own files and folders, and by their names what we keep.

A file or folder is one item that tells the shell to look by itself, since only the shell knows how it wants names
quoted. That item stands first: a script of click's that somebody's shell has still loaded forgets what came before it.
click's part is imported when something is completed, not with each command.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

import click

from vllm_circus.cli.common import Session
from vllm_circus.errors import CircusError
from vllm_circus.view.outline import read_plan_outline
from vllm_circus.view.starting import saved_names

if TYPE_CHECKING:
    from collections.abc import Iterable

    from click.shell_completion import CompletionItem

F = TypeVar("F", bound=Callable[..., Any])


def files(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Files, as the shell finds them."""
    return [_item(incomplete, "file")]


def folders(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Folders, as the shell finds them."""
    return [_item(incomplete, "dir")]


def configurations(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The names of saved configurations."""
    with suppress(CircusError):  # an instance that cannot be called so: said when the command runs
        return _named(saved_names(context.ensure_object(Session).instance), incomplete)
    return []


def models_files(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Whatever may stand for a models file: a file, or a saved configuration's name."""
    return [_item(incomplete, "file"), *configurations(context, parameter, incomplete)]


def models(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Whatever may stand for a model: a folder, or the name of one of the running set."""
    found = [_item(incomplete, "dir")]
    with suppress(CircusError):
        outline = read_plan_outline(context.ensure_object(Session).instance)
        found += _named(dict.fromkeys(model.group for model in outline.models) if outline else (), incomplete)
    return found


def config_argument(command: F) -> F:
    """Adds `[CONFIG]`, a models file or a saved configuration's name: what `config_file` takes."""
    return click.argument("config", metavar="[CONFIG]", required=False, shell_complete=models_files)(command)


def _named(names: Iterable[str], incomplete: str) -> list[CompletionItem]:
    return [_item(name, "plain") for name in names if name.startswith(incomplete)]


def _item(value: str, kind: str) -> CompletionItem:
    from click.shell_completion import CompletionItem

    return CompletionItem(value, type=kind)
