"""Fetching a model with a bar that shows how far it is; where there is no terminal, a line now and then."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from vllm_circus.cli import stock
from vllm_circus.cli.common import say, words
from vllm_circus.logline import clean
from vllm_circus.view.units import counted, size

if TYPE_CHECKING:
    from vllm_circus.catalogue.fetching import Watcher
    from vllm_circus.catalogue.pull import Shipment
    from vllm_circus.paths import Instance

_STEP = 10  # percent, between two lines


def pull(instance: Instance, model: str, revision: str | None = None, include: Sequence[str] = ()) -> Path:
    """Fetch a model, telling on stderr how far it is, and return its folder. Raises CircusError."""
    shipment = stock.look_up(instance, model, revision, include)
    name = shipment.order.repository
    if not shipment.missing:
        say(f"{name} is here already: {counted(len(shipment.files), 'file')}, commit {clean(shipment.commit)[:12]}")
    else:
        here = len(shipment.files) - len(shipment.missing)
        parts = [f"{here} more are here already"] * (here > 0)
        parts += [f"{counted(shipment.left_out, 'other')} left out"] * (shipment.left_out > 0)
        beside = ", ".join(parts)
        what = f"{counted(len(shipment.missing), 'file')}, {size(shipment.size)}"
        say(f"fetching {name}: {what}{f' ({beside})' if beside else ''}")
    try:
        with _shown(shipment) as watcher:
            folder = stock.fetch(instance, shipment, watcher)
    except KeyboardInterrupt:
        say(f"broken off; `{words(instance, f'models pull {model}')}` goes on: files that are whole stay")
        raise
    return folder


@contextmanager
def _shown(shipment: Shipment) -> Iterator[Watcher]:
    if not sys.stderr.isatty() or not shipment.missing:
        yield Lines(shipment.size)
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.fields[files]}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield _Bar(progress, shipment)


class _Bar:
    """A watcher that moves a bar of rich."""

    def __init__(self, progress: object, shipment: Shipment) -> None:
        from rich.progress import Progress

        assert isinstance(progress, Progress)  # noqa: S101 - for the type checker: rich is imported late
        self._progress, self._count = progress, len(shipment.files)
        self._task = progress.add_task("", total=shipment.size, files=self._files(0))

    def moved(self, size: int, files: int) -> None:
        self._progress.update(self._task, completed=size, files=self._files(files))

    def _files(self, files: int) -> str:
        return f"{files} of {counted(self._count, 'file')}"


class Lines:
    """A watcher that writes a line for every tenth."""

    def __init__(self, total: int) -> None:
        self._total, self._told = total, 0

    def moved(self, done: int, _files: int) -> None:
        """A line, where another tenth is here."""
        percent = 100 * done // self._total if self._total else 0
        if percent >= self._told + _STEP and percent < 100:
            self._told = percent - percent % _STEP
            say(f"{self._told}%: {size(done)} of {size(self._total)}")
