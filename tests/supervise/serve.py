"""Runs the daemon on a plan from a file, without proxy and plugins: `python -m tests.supervise.serve PLAN [EXTRA]`.

EXTRA is a file of further ini sections. `--manual` starts no model by itself.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from tests.supervise.plans import bare_files
from vllm_circus.errors import CircusError
from vllm_circus.plan.types import load_plan
from vllm_circus.supervise.daemon import run


def main(arguments: list[str]) -> int:
    autostart = "--manual" not in arguments
    plan_file, *extra = [argument for argument in arguments if argument != "--manual"]
    plan = load_plan(Path(plan_file).read_bytes())
    ini, *rest = bare_files(plan, autostart=autostart)
    more = b"".join(b"\n" + Path(name).read_bytes() for name in extra)
    try:
        return run(plan, background=False, files=(replace(ini, content=ini.content + more), *rest))
    except CircusError as error:
        sys.stderr.write(f"error: {error} {error.hint}\n")
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
