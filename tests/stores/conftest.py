"""A place for what is kept, and others who write there at the same time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vllm_circus.config.models import Profile
from vllm_circus.paths import Instance
from vllm_circus.stores.shelf import Shelf, profile_shelf


@pytest.fixture
def instance(tmp_path: Path) -> Instance:
    """An instance whose folders do not exist yet."""
    return Instance("default", tmp_path / "config", tmp_path / "state", tmp_path / "log", tmp_path / "run")


@pytest.fixture
def shelf(instance: Instance) -> Shelf[Profile]:
    """The profiles of that instance."""
    return profile_shelf(instance)


Fork = Callable[[Callable[[], object]], int]


@pytest.fixture
def fork() -> Iterator[Fork]:
    """Runs a function in a process of its own, which leaves with 0 unless the function raises; returns its pid."""
    started: list[int] = []

    def begin(work: Callable[[], object]) -> int:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                work()
                code = 0
            finally:
                os._exit(code)
        started.append(pid)
        return pid

    yield begin
    for pid in started:
        try:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):
            continue


def result_of(pid: int) -> int:
    """The exit code of a process that `fork` began."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
