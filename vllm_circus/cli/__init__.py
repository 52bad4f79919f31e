"""The command line: one small file per command.

Rules: stdout is data, stderr is talk. A command imports what it needs when it runs, so that help, completion and
`status` answer within 300 ms. Whatever goes wrong, a person reads a sentence and never a traceback.

Exit codes: 0 done, 1 failed, 2 usage or configuration, 3 not running or not ready, 4 unknown model, 130 interrupted
by Ctrl-C, 141 the reader of our output went away.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vllm_circus.cli.common import Session


def main(arguments: Sequence[str] | None = None, *, open_menu: Callable[[Session], None] | None = None) -> None:
    """Run the command line, and leave through SystemExit; `open_menu` is what no command on a terminal means."""
    from vllm_circus.cli.outcome import run_safely

    sys.exit(run_safely(sys.argv[1:] if arguments is None else arguments, open_menu))
