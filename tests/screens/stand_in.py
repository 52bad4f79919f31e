"""A program with a screen: it shows its size and the keys that it was sent, and ends as it is told."""

from __future__ import annotations

import select
import sys

from vllm_circus.screens.terminal import Terminal, is_capable
from vllm_circus.view.table import Cell


def main() -> None:
    assert is_capable()
    input("Enter begins ")
    pressed: list[str] = []
    with Terminal() as terminal:
        while "q" not in pressed:
            width, height = terminal.size
            terminal.draw([(Cell(f"{width}x{height}", "good"),), (Cell(f"pressed {' '.join(pressed)}."),)])
            select.select(terminal.sources, [], [])
            terminal.heed()
            pressed += terminal.read()
            if "!" in pressed:
                raise RuntimeError("as it was told")
    print("left")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
