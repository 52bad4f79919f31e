"""The draft of a setup on disk: what was answered outlives Ctrl-C, a lost connection and a kill.

Rule: a new set has a draft, and each saved configuration that is changed has its own, so that none takes the place of
another; where several menus are at the same, each has one of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING

from vllm_circus.menu.wizard.proxy import first_values
from vllm_circus.menu.wizard.setup import Setup, dump_draft, load_draft
from vllm_circus.stores.drafts import Claim, draft_file, draft_numbers

if TYPE_CHECKING:
    from pathlib import Path

    from vllm_circus.paths import Instance


class Draft:
    """The draft of what is set up: of the saved configuration of that name, or of a new one where it is empty.

    It is this menu's alone after `claim`, until the context ends.
    """

    def __init__(self, instance: Instance, name: str = "", number: int = 1) -> None:
        self._instance = instance
        self.name = name
        self.number = number
        self._claim: Claim | None = None

    def __enter__(self) -> Draft:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    @property
    def path(self) -> Path:
        """Where it lies: with the state of the instance, for its owner alone."""
        return draft_file(self._instance.state_dir, self.name, self.number)

    def claim(self) -> bool:
        """Whether it is ours from now on; where nothing can be written there is no draft, and nobody else's either."""
        claim = Claim(self.path)
        with suppress(OSError):
            if not claim.take():
                return False
            self._claim = claim
        return True

    def take_free(self) -> None:
        """Be the first one of that name that is nobody's and says nothing; it is ours from now on."""
        for self.number in count(1):
            if self.claim():
                if self.read() is None:
                    return
                self.release()

    def release(self) -> None:
        """Another menu may have it."""
        if self._claim is not None:
            self._claim.release()
            self._claim = None

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
        if name == self.name:
            return
        self.release()
        for left in left_over(self._instance, name):
            with left:
                left.drop()
        self.name = name
        self.take_free()


def left_over(instance: Instance, name: str) -> Iterator[Draft]:
    """The drafts of that configuration that no menu has open: they are ours from now on."""
    for number in draft_numbers(instance.state_dir, name):
        draft = Draft(instance, name, number)
        if draft.claim():
            if draft.read() is not None:
                yield draft
            else:
                draft.release()


def free_draft(instance: Instance, name: str) -> Draft:
    """A draft of that configuration that is nobody's and says nothing yet; it is ours from now on."""
    draft = Draft(instance, name)
    draft.take_free()
    return draft
