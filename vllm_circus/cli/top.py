"""`vllm-circus top`: the running set on one live screen."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from vllm_circus.cli.common import (
    ALL,
    Session,
    instance_option,
    need_outline,
    need_running,
    print_lines,
    terminal_width,
)
from vllm_circus.cli.completing import model_argument
from vllm_circus.cli.operate import meant

if TYPE_CHECKING:
    from vllm_circus.paths import Instance

#: Columns of a picture that is written to a file or a pipe.
WIDTH = 120


@click.command(short_help="Watch the set live: backends, requests, GPUs and logs.")
@model_argument(ALL, required=False)
@click.option("--once", is_flag=True, help="Print one picture and return.")
@instance_option
@click.pass_obj
def top(session: Session, names: tuple[str, ...], *, once: bool) -> None:
    """Watch the running set on a full screen: every backend with its traffic, the GPUs, and the proxy's log.

    With MODEL it is that model's health, load and log, with several or `all` an overview of these. Tab goes from view
    to view, `?` lists the keys, `q` leaves. P50 and P95 are the times to the first byte of an answer that half of the
    answers of the last minute, and 95 % of them, were within, estimated from buckets. Where standard output is no
    terminal, or TERM is `dumb`, what changes is written line by line until Ctrl-C. Exit code 3 where nothing runs.
    """
    instance = session.instance
    need_running(instance)
    outline = need_outline(instance)
    engines = meant(names, outline)
    if once:
        _print_once(instance, tuple(engine.name for engine in engines))
        return
    from vllm_circus.screens.monitor import show_models, show_proxy, show_some

    if ALL in names:
        show_models(instance)  # those that are added meanwhile, too
    elif names:
        show_some(instance, names)
    else:
        show_proxy(instance)


def _print_once(instance: Instance, names: tuple[str, ...]) -> None:
    """One picture, as soon as both plugins have spoken or had time to."""
    from vllm_circus.cli.status import pictures_of
    from vllm_circus.screens.monitor import once_lines

    picture = next(pictures_of(instance))
    lines = once_lines(instance, picture, names, terminal_width() or WIDTH)
    print_lines((line, False) for line in lines)
    sys.stdout.flush()
