"""The start of a set, or of some of its models, on a screen: how far each one is, and what to do about those that fail.

`show_startup` returns how it ended. Where no screen can be drawn, or none is wanted (`plain`), it writes line by line
and returns as soon as something has failed for good: whoever called asks then what is to be done.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import closing
from datetime import UTC, datetime

from vllm_circus.paths import Instance
from vllm_circus.screens.feed import Feed, need_set
from vllm_circus.screens.mode import draws
from vllm_circus.screens.runner import Guard, Source, View, run
from vllm_circus.screens.starting import RETRY, WITHOUT, Outcome, Startup, after, taken
from vllm_circus.screens.startview import render, tell


def show_startup(
    instance: Instance,
    names: Iterable[str],
    *,
    choices: Collection[str] = (RETRY, WITHOUT),
    patience: float | None = None,
    plain: bool | None = None,
    guard: Guard | None = None,
) -> Outcome:
    """Show how engines come up until all are ready and the proxy serves, or somebody decides otherwise.

    Args:
        instance: whose set it is.
        names: the engines that are waited for.
        choices: what is offered where one fails, of `r` (start it again), `c` (stop it, continue without it) and `e`
            (edit it: only returns that this is wanted).
        patience: seconds until it ends by itself where nobody decides on a failure; None for never.
        plain: line by line; None leaves it to the setting.
        guard: is told every word of the bus, and raises CircusError where there is no hope.

    Raises:
        NotRunning: nothing runs.
        CircusError: what the guard raised.
        KeyboardInterrupt: Ctrl-C; the set goes on starting.
    """
    planned, full = need_set(instance), draws(instance, plain)
    waited = tuple(dict.fromkeys(names))
    began = datetime.fromtimestamp(planned.began, UTC) if planned.began is not None else None
    state = Startup(waited, frozenset(choices) if full else frozenset(), patience)
    view = View(after, render, lambda state: state.outcome is not None, tell, taken)
    with closing(Feed(instance, planned, lambda _outline: waited, began)) as feed:
        outcome = run(view, state, Source(instance, feed, guard), full=full).outcome
    return outcome or Outcome("left", waiting=waited)
