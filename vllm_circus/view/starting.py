"""The command that starts a set, as its operator would type it now: from what ran last, and from what there is."""

from __future__ import annotations

import shlex
from pathlib import Path

from vllm_circus.paths import Instance
from vllm_circus.view.outline import command_for, read_plan_outline


def start_command(instance: Instance) -> str:
    """`vllm-circus up -d`, with the models file or the saved configuration where that is not the instance's own file.

    What ran last is meant as long as it is there; else the instance's file, or a saved configuration where it has none.
    """
    outline = read_plan_outline(instance)
    named = _named(instance, Path(outline.source) if outline else None)
    return command_for(instance.name, f"up -d {named}" if named else "up -d")


def _named(instance: Instance, last: Path | None) -> str:
    if last is not None and last.is_file():
        if last == instance.config_file:
            return ""
        return last.stem if last.parent == instance.configs else shlex.quote(str(last))
    if instance.config_file.is_file():
        return ""
    return next(iter(saved_names(instance)), "")


def saved_names(instance: Instance) -> list[str]:
    """The names of the saved configurations, read without the schema; none where the folder cannot be read."""
    try:
        return sorted(path.stem for path in instance.configs.glob("[a-z0-9]*.yaml"))
    except OSError:  # another user's
        return []
