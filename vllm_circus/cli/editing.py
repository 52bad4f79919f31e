"""Editing a text with the operator's editor, which is checked before it takes the old one's place.

Rules: what was typed is never thrown away: where it has faults, or somebody else was faster, the edited copy stays and
is named.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from itertools import islice
from pathlib import Path

from vllm_circus.cli.common import say
from vllm_circus.cli.sure import confirm
from vllm_circus.errors import CircusError
from vllm_circus.files import file_errors, private_directory
from vllm_circus.paths import Instance


class NoEditor(CircusError):
    """Nothing is there to edit with."""

    exit_code = 2


def edit_text(instance: Instance, name: str, text: str, keep: Callable[[str], None]) -> bool:
    """Have the text edited and hand it to `keep`, which raises CircusError where it cannot be taken.

    Returns whether anything was changed. On a terminal, faults are shown and the editor is offered again. Raises
    NoEditor, and what `keep` raised; the edited copy then stays in the instance's state folder, and is named.
    """
    with file_errors():
        folder = private_directory(instance.state_dir)
        handle, path = tempfile.mkstemp(prefix=f"{name}.", suffix=".yaml", dir=folder)
        os.close(handle)
        copy = Path(path)
        copy.write_text(text, encoding="utf-8")
    try:
        return _edit(copy, text, keep)
    except BaseException:
        if copy.is_file():  # an editor may take it away
            if copy.read_text(encoding="utf-8", errors="replace") == text:
                copy.unlink()
            else:
                say(f"the edited copy is {copy}")
        raise


def _edit(copy: Path, text: str, keep: Callable[[str], None]) -> bool:
    while True:
        _run_editor(copy)
        edited = _read(copy)
        if edited == text:
            copy.unlink()
            return False
        try:
            keep(edited)
        except CircusError as error:
            if not _again(error):
                raise
        else:
            copy.unlink()
            return True


def _read(copy: Path) -> str:
    from vllm_circus.stores.inplace import read_text

    return read_text(copy)


def _again(error: CircusError) -> bool:
    """Whether somebody is there who wants to correct it."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    from vllm_circus.cli.outcome import explain

    explain(error)
    return confirm("edit it again?", default=True)


def _run_editor(copy: Path) -> None:
    words = editor()
    try:
        done = subprocess.run([*words, str(copy)], check=False)
    except OSError as error:
        hint = "set VISUAL or EDITOR to a program that is installed"
        raise NoEditor(f"cannot run the editor {words[0]}: {error.strerror}", hint=hint) from None
    if done.returncode:
        raise CircusError(f"the editor {words[0]} ended with exit code {done.returncode}", hint="nothing was changed")


def editor() -> list[str]:
    """The words that run the operator's editor. Raises NoEditor.

    One that nobody has named is for a terminal alone: a pipe would be filled with what draws its screen.
    """
    wish = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    try:
        words = shlex.split(wish) if wish else list(islice(filter(shutil.which, ("nano", "vi")), 1))
    except ValueError:
        words = []
    if not words:
        raise NoEditor("there is no editor", hint="set VISUAL or EDITOR, e.g. EDITOR=nano")
    if not wish and not (sys.stdin.isatty() and sys.stdout.isatty()):
        hint = "edit on a terminal, or set VISUAL or EDITOR to a program that needs none"
        raise NoEditor(f"the editor {words[0]} needs a terminal", hint=hint)
    return words
