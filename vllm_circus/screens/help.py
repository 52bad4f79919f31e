"""The keys of the screens: one table, which the screens show and the README lists."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vllm_circus.screens.canvas import width_of
from vllm_circus.view.table import Cell, Line


@dataclass(frozen=True)
class KeyHelp:
    """One key, or several that belong together: `short` stands in the bottom line, where it is not empty."""

    keys: str
    does: str
    short: str = ""


#: The keys that choose among models that failed.
CHOOSE = "Up, Down, Tab"

MONITOR_KEYS = (
    KeyHelp("q, Escape", "leave", "q leave"),
    KeyHelp("Tab, Shift-Tab", "the next view, the one before: proxy, all models, each model", "Tab next view"),
    KeyHelp("Left, Right", "the model before, the next one", "←→ model"),
    KeyHelp("/", "search the log: Enter searches, Escape does not", "/ search"),
    KeyHelp("n, N", "the next place upwards, downwards"),
    KeyHelp("f", "follow the log, or stay", "f follow"),
    KeyHelp("p", "pause everything, or go on", "p pause"),
    KeyHelp("Up, Down, k, j", "a line up, down"),
    KeyHelp("PgUp, PgDn, Ctrl-B, Ctrl-F", "a page up, down"),
    KeyHelp("Home, End", "the oldest line, the newest one"),
    KeyHelp("w", "wrap long lines, or cut them off"),
    KeyHelp("t", "show the time of each line, or not"),
    KeyHelp("l", "hide the log, or show it"),
    KeyHelp("Ctrl-L", "draw everything anew"),
    KeyHelp("Ctrl-C", "leave, as from any command"),
    KeyHelp("?", "show these keys, or leave them", "? keys"),
)

STARTUP_KEYS = (
    KeyHelp("r", "start the model that failed again", "r retry"),
    KeyHelp("c", "continue without it", "c continue without it"),
    KeyHelp("e", "edit its configuration", "e edit"),
    KeyHelp(CHOOSE, "choose among several that failed", "↑↓ choose"),
    KeyHelp("q, Escape", "wait no longer; the set goes on starting", "q leave"),
    KeyHelp("Ctrl-C", "leave, as from any command"),
    KeyHelp("?", "show these keys, or leave them", "? keys"),
)


def key_line(keys: Sequence[KeyHelp], width: int) -> Line:
    """The short words for as many keys as fit; the last one always does where any does.

    Two words are enough of a key where more keys can be told so.
    """
    shorts = [key.short for key in keys if key.short]
    whole = _as_fit(shorts, width)
    shorter = _as_fit([" ".join(short.split()[:2]) for short in shorts], width)
    return (Cell("  ".join(shorter if len(shorter) > len(whole) else whole), "dim"),)


def _as_fit(shorts: Sequence[str], width: int) -> list[str]:
    left = list(shorts)
    while len(left) > 1 and width_of((Cell("  ".join(left)),)) > width:
        del left[-2]
    return left


def help_lines(keys: Sequence[KeyHelp], width: int) -> Iterator[Line]:
    """Every key with what it does."""
    wide = max(len(key.keys) for key in keys)
    yield (Cell("Keys", "bold"),)
    for key in keys:
        yield Cell(f"  {key.keys.ljust(wide) if width > wide + 20 else key.keys}", "bold"), Cell(f"  {key.does}")
    yield ()
    yield (Cell("any key goes back", "dim"),)
