"""A proxy worker: `python -m vllm_circus.proxy --plan FILE --fd N [--unix-fd N]`, started by circusd.

`--plan` is the plan.json of the run directory, the numbers are inherited listening sockets. argparse would stay in the
memory of each worker.
"""

from __future__ import annotations

import os
import sys
from getopt import GetoptError, getopt
from pathlib import Path

from vllm_circus.errors import CircusError
from vllm_circus.plan.types import digest_of, load_plan

_USAGE = "usage: python -m vllm_circus.proxy --plan FILE --fd N [--unix-fd N]"


def main() -> int:
    """Serve until told to end; returns the exit code."""
    try:
        return _run(*_read(sys.argv[1:]))
    except CircusError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - nothing logs yet
        if error.hint:
            print(f"  {error.hint}", file=sys.stderr)  # noqa: T201
        return error.exit_code


def _read(words: list[str]) -> tuple[Path, int, int | None]:
    """The plan's file and the two descriptors. Raises CircusError."""
    try:
        given = dict(getopt(words, "", ["plan=", "fd=", "unix-fd="])[0])
        unix = given.get("--unix-fd")
        return Path(given["--plan"]), int(given["--fd"]), None if unix is None else int(unix)
    except KeyError as error:
        raise CircusError(f"option {error.args[0]} is missing", hint=_USAGE) from None
    except (GetoptError, ValueError) as error:
        raise CircusError(str(error), hint=_USAGE) from None


def _run(plan_file: Path, descriptor: int, unix_descriptor: int | None) -> int:
    from vllm_circus.proxy.keys import load_keys
    from vllm_circus.proxy.server import serve

    try:
        data = plan_file.read_bytes()
        plan = load_plan(data)
    except (OSError, ValueError) as error:
        raise CircusError(f"the plan cannot be read from {plan_file}: {error}") from None
    keys = load_keys(plan.proxy.keys_file, plan.proxy.keys_env, os.environ)
    return serve(plan, keys, descriptor, unix_descriptor, digest=digest_of(data))


if __name__ == "__main__":
    sys.exit(main())
