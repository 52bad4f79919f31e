"""The command that starts a set, as its operator would type it now: from what ran last, and from what there is."""

from __future__ import annotations

import shlex
from pathlib import Path

from vllm_circus.paths import Instance
from vllm_circus.view.outline import command_for, read_plan_outline

#: Stands for the name of one of several saved configurations; none can be called so.
ANY = "NAME"
_MOST = 6  # names that are listed


def start_words(instance: Instance, config: Path | None = None) -> str:
    """`start_command` between backticks; where it leaves a name open, with those that it may be."""
    names = saved_names(instance) if config is None and _choice(instance) == ANY else []
    more = " …" if len(names) > _MOST else ""
    which = f" (NAME is one of {', '.join(names[:_MOST])}{more})" if names else ""
    return f"`{start_command(instance, config)}`{which}"


def start_command(instance: Instance, config: Path | None = None) -> str:
    """`vllm-circus up -d`, with the models file or the saved configuration where that is not the instance's own file.

    `config` is the models file that is meant. Without it, what ran last is meant as long as it is there; else the
    instance's file, or a saved configuration where it has none: the only one, or NAME where nobody can tell which.
    """
    named = _choice(instance) if config is None else _word(instance, config)
    return command_for(instance.name, f"up -d {named}" if named else "up -d")


def _choice(instance: Instance) -> str:
    outline = read_plan_outline(instance)
    last = Path(outline.source) if outline else None
    if last is not None and last.is_file():
        return _word(instance, last)
    names = [] if instance.config_file.is_file() else saved_names(instance)
    return ANY if len(names) > 1 else "".join(names)


def _word(instance: Instance, path: Path) -> str:
    if path == instance.config_file:
        return ""
    return path.stem if path.parent == instance.configs else shlex.quote(str(path))


def saved_names(instance: Instance) -> list[str]:
    """The names of the saved configurations, read without the schema; none where the folder cannot be read."""
    return kept_names(instance.configs)


def kept_names(folder: Path) -> list[str]:
    """The names that files of a folder are kept under, read without the schema; none where it cannot be read."""
    try:
        return sorted(path.stem for path in folder.glob("[a-z0-9]*.yaml"))
    except OSError:  # another user's
        return []
