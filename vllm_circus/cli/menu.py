"""`vllm-circus menu`: the interactive mode, which `vllm-circus` alone opens on a terminal as well."""

from __future__ import annotations

import sys

import click

from vllm_circus.cli.common import Session, instance_option
from vllm_circus.errors import CircusError


class NoTerminal(CircusError):
    """The menu was asked for where nobody can choose."""

    exit_code = 2


@click.command(short_help="Choose instead of typing: all of this as a menu.")
@instance_option
@click.pass_obj
def menu(session: Session) -> None:
    """Open the menu: set models up, start them, watch them. It needs a terminal; `vllm-circus` alone opens it, too."""
    if session.open_menu is None or not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise NoTerminal("the menu needs a terminal", hint="`vllm-circus --help` lists the commands, which need none")
    session.open_menu(session)
