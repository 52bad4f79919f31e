"""What every menu is given: the instance that it is about, whoever asks, and the machine around."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vllm_circus.facts import Disk
from vllm_circus.menu.ask import Asker

if TYPE_CHECKING:
    from vllm_circus.cli.common import Session
    from vllm_circus.paths import Instance


@dataclass(frozen=True)
class Context:
    """One run of the menu.

    Attributes:
        session: what the command line knows of this run.
        instance: the instance that `--instance` names.
        asker: whoever asks.
        environ: the environment; tests give their own.
        disk: the file system, through which planning and the catalogue look.
        plain: nothing is drawn that moves: the asker writes lines, and so does a start.
    """

    session: Session
    instance: Instance
    asker: Asker
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ), repr=False)
    disk: Disk = field(default_factory=Disk, repr=False)
    plain: bool = False

    @property
    def width(self) -> int:
        """Columns of the terminal now."""
        return max(shutil.get_terminal_size().columns, 20)
