"""`vllm-circus-simulator`: the entry point. `serve MODEL` is its one command, as it is the real server's main one."""

from __future__ import annotations

import os
import sys

from .console import STDERR, STDOUT, write
from .gpus import FindCards, find_cards
from .options import UsageError, help_text, parse


def main(arguments: list[str] | None = None, find_cards: FindCards = find_cards) -> int:
    """Run the command line; the exit code (2 for a usage error)."""
    given = sys.argv[1:] if arguments is None else arguments
    if not given or {"-h", "--help"} & set(given):
        write(STDOUT, help_text())
        return 0 if given else 2
    if given[0] in ("--version", "-v"):
        write(STDOUT, "0.32.0\n")
        return 0
    if given[0] != "serve":
        write(
            STDERR,
            f"vllm-circus-simulator: error: argument subparser: invalid choice: {given[0]!r} (choose from serve)\n",
        )
        return 2
    try:
        options = parse(given[1:], os.environ, find_cards)
    except UsageError as error:
        write(
            STDERR, f"usage: vllm-circus-simulator serve MODEL [FLAG…]\nvllm-circus-simulator serve: error: {error}\n"
        )
        return 2
    from .boot import serve

    return serve(options)


if __name__ == "__main__":
    sys.exit(main())
