"""A proxy worker: `python -m vllm_circus.proxy --plan FILE --fd N [--unix-fd N]`, started by circusd."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from vllm_circus.errors import CircusError
from vllm_circus.plan.types import digest_of, load_plan


def main() -> int:
    """Serve until told to end; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m vllm_circus.proxy", description="One proxy worker.")
    parser.add_argument("--plan", type=Path, required=True, help="the plan.json of the run directory")
    parser.add_argument("--fd", type=int, required=True, help="the inherited listening socket")
    parser.add_argument("--unix-fd", type=int, help="the inherited listening unix socket")
    given = parser.parse_args()
    try:
        return _run(given.plan, given.fd, given.unix_fd)
    except CircusError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - nothing logs yet
        if error.hint:
            print(f"  {error.hint}", file=sys.stderr)  # noqa: T201
        return error.exit_code


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
