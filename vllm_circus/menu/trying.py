"""Doing one thing of a menu: whatever goes wrong is told, and the menu goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVarTuple

from vllm_circus.files import file_errors
from vllm_circus.menu.main import guarded

if TYPE_CHECKING:
    from vllm_circus.menu.context import Context

A = TypeVarTuple("A")


def attempt(context: Context, run: Callable[[Context, *A], object], *given: *A) -> None:
    """Do it; what is wrong with it, or with a file, is told, and Back ends it."""

    def carried_out(context: Context) -> None:
        with file_errors():
            run(context, *given)

    guarded(context, carried_out)
