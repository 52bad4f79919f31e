"""`vllm-circus gpus`: the cards of this machine, as the driver shows them.

The table fits 80 columns; where the terminal is wide enough the whole UUID stands in it, else its beginning, which
CUDA_VISIBLE_DEVICES takes as well.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict

import click

from vllm_circus.gpu import Gpu, NoDriver, list_gpus
from vllm_circus.logline import clean

HEADINGS = ("GPU", "NAME", "USED / TOTAL", "USE", "TEMP", "UUID")
NAME, UUID = HEADINGS.index("NAME"), HEADINGS.index("UUID")
SHORT_UUID = len("GPU-01234567")
NARROWEST = 80
GAP = "  "
UNKNOWN = "-"


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with every value in bytes, percent or Celsius.")
def gpus(*, as_json: bool) -> None:
    """Show the GPUs: memory, use, temperature."""
    if as_json:
        _print_json()
        return
    cards = list_gpus()
    if not cards:
        click.echo("the driver works, but it shows no GPU", err=True)
    else:
        click.echo(table(cards, shutil.get_terminal_size().columns))
    for card in cards:
        if card.fault:
            click.echo(f"warning: {clean(card.fault)}", err=True)


def _print_json() -> None:
    """Always one JSON document; without a driver the exit code says so too."""
    try:
        answer = {"gpus": [asdict(card) for card in list_gpus()], "error": None, "hint": ""}
    except NoDriver as error:
        answer = {"gpus": [], "error": str(error), "hint": error.hint}
    click.echo(json.dumps(answer, indent=2))
    if answer["error"]:
        raise click.exceptions.Exit(NoDriver.exit_code)


def table(cards: Sequence[Gpu], width: int) -> str:
    """The cards as lines of at most `width` columns; below 80 it is made for 80."""
    room = max(width, NARROWEST)
    rows = [HEADINGS, *(_cells(card) for card in cards)]
    if _width(rows) > room:
        rows = [_replace(row, UUID, row[UUID][:SHORT_UUID]) for row in rows]
    if (excess := _width(rows) - room) > 0:
        longest = max(len(row[NAME]) for row in rows) - excess
        rows = [_replace(row, NAME, _shorten(row[NAME], longest)) for row in rows]
    widths = _widths(rows)
    return "\n".join(_line(row, widths) for row in rows)


def _cells(card: Gpu) -> tuple[str, ...]:
    return (
        str(card.index),
        clean(card.name) or UNKNOWN,
        f"{_gibibytes(card.memory_used)} / {_gibibytes(card.memory_total)} GiB",
        UNKNOWN if card.utilisation is None else f"{card.utilisation} %",
        UNKNOWN if card.temperature is None else f"{card.temperature} C",
        clean(card.uuid) or UNKNOWN,
    )


def _gibibytes(size: int | None) -> str:
    return UNKNOWN if size is None else f"{size / (1 << 30):.1f}"


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _replace(row: tuple[str, ...], column: int, text: str) -> tuple[str, ...]:
    return (*row[:column], text, *row[column + 1 :])


def _widths(rows: Sequence[tuple[str, ...]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*rows, strict=True)]


def _width(rows: Sequence[tuple[str, ...]]) -> int:
    return sum(_widths(rows)) + len(GAP) * (len(HEADINGS) - 1)


def _line(row: tuple[str, ...], widths: list[int]) -> str:
    """Words to the left, numbers to the right."""
    cells = (
        cell.ljust(width) if column in {NAME, UUID} else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(row, widths, strict=True))
    )
    return GAP.join(cells).rstrip()
