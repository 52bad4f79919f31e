"""`vllm-circus gpus`: the cards of this machine, as the driver shows them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

import click

from vllm_circus.cli.common import say, terminal_width
from vllm_circus.gpu import Gpu, NoDriver, list_gpus
from vllm_circus.logline import clean
from vllm_circus.view.table import Cell, Column, Line, layout, paint_row
from vllm_circus.view.units import UNKNOWN, size

COLUMNS = (
    Column("GPU", number=True),
    Column("NAME"),
    Column("USED", number=True),
    Column("TOTAL", number=True),
    Column("USE", number=True),
    Column("TEMP", number=True),
    Column("UUID"),
)
NARROW = 80  # columns; with the two cuts below the table never needs more
NARROW_NAME = 32
NARROW_UUID = len("GPU-01234567")  # CUDA_VISIBLE_DEVICES takes a beginning as well


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with every value in bytes, percent or Celsius.")
def gpus(*, as_json: bool) -> None:
    """Show the GPUs: memory, use, temperature."""
    if as_json:
        _print_json()
        return
    cards = list_gpus()
    if not cards:
        say("the driver works, but it shows no GPU")
    else:
        click.echo(table(cards, terminal_width() or NARROW))
    for card in cards:
        if card.fault:
            say(f"warning: {clean(card.fault)}")


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
    """The cards as lines of at most `width` columns, or of 80 where that is less; long words are cut to fit."""
    lines = _lines(cards, name=None, uuid=None)
    if max(map(len, lines)) > max(width, NARROW):
        lines = _lines(cards, name=NARROW_NAME, uuid=NARROW_UUID)
    return "\n".join(lines)


def _lines(cards: Sequence[Gpu], *, name: int | None, uuid: int | None) -> list[str]:
    rows = [_row(card, name, uuid) for card in cards]
    return [paint_row(line, colour=False) for line in layout(COLUMNS, rows)]


def _row(card: Gpu, name: int | None, uuid: int | None) -> Line:
    texts = (
        str(card.index),
        clean(card.name)[:name] or UNKNOWN,
        UNKNOWN if card.memory_used is None else size(card.memory_used),
        UNKNOWN if card.memory_total is None else size(card.memory_total),
        UNKNOWN if card.utilisation is None else f"{card.utilisation}%",
        UNKNOWN if card.temperature is None else f"{card.temperature}C",
        clean(card.uuid)[:uuid] or UNKNOWN,
    )
    return tuple(map(Cell, texts))
