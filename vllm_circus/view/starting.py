"""The command that starts a set, as its operator would type it now: from what ran last, and from what there is."""

from __future__ import annotations

import shlex
from pathlib import Path

from vllm_circus.paths import Instance
from vllm_circus.view.outline import command_for, read_outline


def start_command(instance: Instance) -> str:
    """`vllm-circus up -d`, with the models file or the saved configuration where that is not the instance's own file.

    What ran last is meant as long as it is there; else the instance's file, or a saved configuration where it has none.
    """
    named = _named(instance, _last_source(instance))
    return command_for(instance.name, f"up -d {named}" if named else "up -d")


def _named(instance: Instance, last: Path | None) -> str:
    if last is not None and last.is_file():
        if last == instance.config_file:
            return ""
        return last.stem if last.parent == instance.configs else shlex.quote(str(last))
    if instance.config_file.is_file():
        return ""
    try:
        saved = sorted(path.stem for path in instance.configs.glob("[a-z0-9]*.yaml"))
    except OSError:  # another user's
        return ""
    return saved[0] if saved else ""


def _last_source(instance: Instance) -> Path | None:
    try:
        return Path(read_outline(instance.plan.read_bytes()).source)
    except (OSError, ValueError):
        return None
