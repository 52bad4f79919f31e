"""What the shell offers behind a command: its own files and folders, and by their names what we keep.

A file or folder is one item that tells the shell to look by itself, since only the shell knows how it wants names
quoted. That item stands first: a script of click's that somebody's shell has still loaded forgets what came before it.
click's part is imported when something is completed, not with each command.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import click

from vllm_circus.cli.common import Session, running_outline
from vllm_circus.errors import CircusError
from vllm_circus.paths import find_instance, is_instance_name
from vllm_circus.view.outline import read_plan_outline
from vllm_circus.view.starting import kept_names, saved_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from click.shell_completion import CompletionItem

    from vllm_circus.paths import Instance

F = TypeVar("F", bound=Callable[..., Any])
#: What click asks for the items behind an argument or an option.
Complete: TypeAlias = "Callable[[click.Context, click.Parameter, str], list[CompletionItem]]"


def files(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Files, as the shell finds them."""
    return [_item(incomplete, "file")]


def folders(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Folders, as the shell finds them."""
    return [_item(incomplete, "dir")]


def named(find: Callable[[click.Context], Iterable[str]]) -> Complete:
    """Completes with names that are found when they are asked for; where they cannot be found, with none."""

    def complete(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        with suppress(CircusError):  # an instance that cannot be called so: said when the command runs
            return [_item(name, "plain") for name in find(context) if name.startswith(incomplete)]
        return []

    return complete


def models_files(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Whatever may stand for a models file: a file, or a saved configuration's name."""
    return [_item(incomplete, "file"), *configurations(context, parameter, incomplete)]


def models(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Whatever may stand for a model: a folder, or the name of one of the running set, or of the models file."""
    return [_item(incomplete, "dir"), *_known_models(context, parameter, incomplete)]


def config_argument(command: F) -> F:
    """Adds `[CONFIG]`, a models file or a saved configuration's name: what `config_file` takes."""
    return click.argument("config", metavar="[CONFIG]", required=False, shell_complete=models_files)(command)


def model_argument(*others: str, required: bool) -> Callable[[F], F]:
    """Adds `MODEL…`, which the shell completes from the running set, and from `others` that it may be."""

    def find(context: click.Context) -> Iterable[str]:
        outline = read_plan_outline(_instance(context))
        return (*(outline.targets if outline else ()), *others)

    metavar = "MODEL..." if required else "[MODEL...]"
    return click.argument("names", metavar=metavar, nargs=-1, required=required, shell_complete=named(find))


def _instance(context: click.Context) -> Instance:
    return context.ensure_object(Session).instance


def _item(value: str, kind: str) -> CompletionItem:
    from click.shell_completion import CompletionItem

    return CompletionItem(value, type=kind)


# -- names -------------------------------------------------------------------------------------------------------------


def _instances(_context: click.Context) -> Iterable[str]:
    """Those that have run, have a models file of their own, or have anything else kept for them."""
    own = find_instance()
    files = {path.stem for path in own.config_dir.glob("*.yaml") if path != own.config_file}
    roots = {folder.parent for folder in (own.run_dir, own.state_dir)}
    folders = {path.name for root in roots for path in root.glob("*/")}
    return sorted(filter(is_instance_name, {own.name, *files, *folders}))


def _own_profiles_and_built_in(context: click.Context) -> list[str]:
    from vllm_circus.config.profiles import BUILTIN

    return list(dict.fromkeys((*kept_names(_instance(context).profiles), *BUILTIN)))


def _profiles_for_a_model(context: click.Context) -> list[str]:
    inside = _document(context).get("profiles")
    of_file = [name for name in inside if isinstance(name, str)] if isinstance(inside, dict) else []
    return list(dict.fromkeys((*of_file, *_own_profiles_and_built_in(context))))


def _models_in_file(context: click.Context) -> list[str]:
    models = _document(context).get("models")
    names = [model.get("name") for model in models if isinstance(model, dict)] if isinstance(models, list) else []
    return [name for name in names if isinstance(name, str)]


def _models_known(context: click.Context) -> Iterable[str]:
    outline = None if context.params.get("config") else read_plan_outline(_instance(context))
    running = [model.group for model in outline.models] if outline else []
    return dict.fromkeys((*running, *_models_in_file(context)))


def _document(context: click.Context) -> Mapping[str, Any]:
    """The models file that the command line is about, read without the schema; empty where that cannot be read."""
    from vllm_circus.config.document import parse_document

    path = _meant_file(context)
    try:
        data = parse_document(path.read_text(encoding="utf-8"), str(path)).data if path.is_file() else None
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def _meant_file(context: click.Context) -> Path:
    instance, given = _instance(context), context.params.get("to") or context.params.get("config")
    if given:
        return instance.configs / f"{given}.yaml" if given in saved_names(instance) else Path(given)
    outline = running_outline(instance)
    return Path(outline.source) if outline else instance.config_file


#: The instances that there are.
instances = named(_instances)
#: The names of saved configurations.
configurations = named(lambda context: saved_names(_instance(context)))
#: The names of shortcuts.
shortcuts = named(lambda context: kept_names(_instance(context).shortcuts))
#: The profiles that are the operator's own, and the built-in ones.
profiles = named(_own_profiles_and_built_in)
#: The same, and before them those of the models file that the command changes.
profiles_for_a_model = named(_profiles_for_a_model)
#: The models of the models file that the command changes.
models_in_file = named(_models_in_file)
_known_models = named(_models_known)
