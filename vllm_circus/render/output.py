"""The rendered files, written down and compared.

Names are relative to the run directory. Everything is written atomically and readable by its owner alone.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from vllm_circus.files import write_as_owner
from vllm_circus.plan.types import Plan, dump_plan
from vllm_circus.render.ini import all_sections, ini_text


@dataclass(frozen=True)
class File:
    """A file to be: its name relative to the run directory, its whole content, its permission bits."""

    name: str
    content: bytes
    mode: int = 0o600


def render_files(plan: Plan) -> Iterator[File]:
    """circus.ini and plan.json. Raises CircusError where a path or argument cannot stand in an ini."""
    yield File("circus.ini", ini_text(all_sections(plan)).encode())
    yield File("plan.json", dump_plan(plan))


def write_files(files: Iterable[File], directory: Path) -> None:
    """Write all `files` into `directory`, which must exist; they belong to its owner. Raises OSError."""
    for file in files:
        write_as_owner(directory / file.name, file.content, mode=file.mode)


def difference(plan: Plan) -> str:
    """A unified diff from what is in the run directory to what `plan` renders; empty where nothing changed."""
    return "".join(_differences(render_files(plan), plan.instance.run_dir))


def _differences(files: Iterable[File], directory: Path) -> Iterator[str]:
    for file in files:
        path = directory / file.name
        old = _read(path)
        if old != file.content:
            yield from difflib.unified_diff(
                old.decode(errors="replace").splitlines(keepends=True),
                file.content.decode().splitlines(keepends=True),
                fromfile=str(path) if old else "/dev/null",
                tofile=f"{path} (rendered)",
            )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
