"""`vllm-circus down`: the end of the set."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from vllm_circus.cli.common import (
    Session,
    end_leftovers,
    instance_option,
    instance_words,
    running_pid,
    say,
    timeout_option,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from vllm_circus.paths import Instance


@click.command(short_help="Stop the set: drain, then end every process of it.")
@timeout_option("Kill what is left after this.  [default: as long as the models' own limits allow]")
@instance_option
@click.pass_obj
def down(session: Session, timeout: float | None) -> None:
    """Stop the set: requests in flight may end, then every process of it ends, circusd last.

    Done already where nothing runs, and leftovers of a set that was killed are ended too.
    """
    stop_set(session.instance, timeout)


def stop_set(instance: Instance, timeout: float | None = None, tell: Callable[[str], None] = say) -> None:
    """End the set and what may be left of an earlier one, and tell how it goes."""
    from vllm_circus.supervise.control import stop_daemon

    if running_pid(instance) is not None:
        stop_daemon(instance, timeout=timeout, progress=tell)
        tell("stopped")
        return
    tell(f"{instance_words(instance)} is not running")
    end_leftovers(instance, tell)


def stop_whoever_listens(instance: Instance, before: Callable[[], None] = lambda: None) -> None:
    """End the set although those who were told so far may have gone; `before` writes what comes before each word."""
    from vllm_circus.cli.streams import whoever_listens

    def tell(text: str) -> None:
        with whoever_listens():
            before()
        with whoever_listens():
            say(text)

    stop_set(instance, tell=tell)
