"""Simulators for the tests: one for all that only ask, others for those that end them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from .running import Running, Simulate, end, running, start


@pytest.fixture(scope="session")
def server() -> Iterator[Running]:
    """A server that many tests ask; none of them changes it."""
    with (
        tempfile.TemporaryDirectory() as folder,
        running(
            Path(folder),
            *("--served-model-name", "first", "second", "--max-model-len", "512"),
            *("--enable-lora", "--lora-modules", "sql=org/sql"),
        ) as one,
    ):
        yield one


@pytest.fixture
def begin(short_dir: Path) -> Iterator[Simulate]:
    """A function that starts a simulator with flags, and does not wait for it."""
    begun: list[Running] = []

    def begin_one(*flags: str, environ: dict[str, str] | None = None) -> Running:
        folder = short_dir / str(len(begun))
        folder.mkdir()
        begun.append(start(folder, *flags, environ=environ))
        return begun[-1]

    yield begin_one
    for one in begun:
        end(one)


@pytest.fixture
def simulate(begin: Simulate) -> Simulate:
    """A function that starts a simulator with flags, and waits until it is ready."""

    def simulate_one(*flags: str, environ: dict[str, str] | None = None) -> Running:
        return begin(*flags, environ=environ).wait_ready()

    return simulate_one
