"""The draft of a setup on disk: what was answered outlives Ctrl-C, a lost connection and a kill.

Rule: a new set has one draft, and each saved configuration that is changed has its own, so that none takes the place
of another.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from vllm_circus.menu.wizard.proxy import first_values
from vllm_circus.menu.wizard.setup import Setup, dump_draft, load_draft

if TYPE_CHECKING:
    from pathlib import Path

    from vllm_circus.paths import Instance


class Draft:
    """The draft of what is set up: of the saved configuration of that name, or of a new one where it is empty."""

    def __init__(self, instance: Instance, name: str = "") -> None:
        self._instance = instance
        self.name = name

    @property
    def path(self) -> Path:
        """Where it lies: with the state of the instance, for its owner alone."""
        return self._instance.state_dir / (f"draft-{self.name}.json" if self.name else "draft.json")

    def keep(self, setup: Setup) -> None:
        """Write it. Where that cannot be done there is no draft: the questions go on."""
        from vllm_circus.files import private_directory, write_atomic

        with suppress(OSError):
            private_directory(self._instance.state_dir)
            write_atomic(self.path, dump_draft(setup), mode=0o600)

    def read(self) -> Setup | None:
        """What it says; None where there is none that can be read."""
        with suppress(OSError, ValueError):
            draft = load_draft(self.path.read_text(encoding="utf-8"))
            return replace(draft, proxy=first_values(draft.proxy))
        return None

    def drop(self) -> None:
        """It is no longer needed."""
        with suppress(OSError):
            self.path.unlink(missing_ok=True)

    def saved_as(self, name: str) -> None:
        """What it says is saved under that name, and what follows is a change of that."""
        self.drop()
        self.name = name
        self.drop()
