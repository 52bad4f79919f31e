"""The status as a screen that changes in place."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace

from rich.console import Console
from rich.live import Live
from rich.text import Text

from vllm_circus.view.status import Picture, folded, status_lines
from vllm_circus.view.table import paint, paint_row


def show_live(pictures: Iterator[Picture]) -> None:
    """Show each picture in place of the one before, until they end."""
    console = Console(highlight=False)
    with Live(console=console, auto_refresh=False, screen=False) as live:
        for picture in pictures:
            live.update(screen(picture, console.width), refresh=True)


def screen(picture: Picture, width: int) -> Text:
    """The whole status as one text for a terminal of that many columns.

    What has to be pasted whole and does not fit is left to `status`: here every line is broken at the last column.
    """
    if any(len(line) > width for line in folded(picture.circusctl, width)):
        picture = replace(picture, circusctl="")
    colour = not os.environ.get("NO_COLOR")
    lines = [(paint_row if is_row else paint)(line, colour=colour) for line, is_row in status_lines(picture, width)]
    return Text.from_ansi("\n".join(lines), no_wrap=False)
