"""`python -m vllm_circus` and the console script `vllm-circus`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_circus.cli import main as run

if TYPE_CHECKING:
    from vllm_circus.cli.common import Session


def main() -> None:
    """Entry point of the console script; leaves through SystemExit."""
    run(open_menu=_open_menu)


def _open_menu(session: Session) -> None:
    """The menu lies above the commands, so it is handed down to them; it is imported when somebody opens it."""
    from vllm_circus.menu.main import open_menu

    open_menu(session)


if __name__ == "__main__":
    main()
