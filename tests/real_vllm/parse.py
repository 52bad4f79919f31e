"""Run by vLLM's own Python: which argument vectors its parser takes, and what its options are called.

Standard input is JSON, a list of argument vectors behind the model; standard output `{"names": […], "taken": […]}`.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import sys
from typing import Any


def main() -> None:
    """Ask the parser of `vllm serve`."""
    out = os.dup(1)
    os.dup2(2, 1)  # vLLM logs to standard output
    plain = importlib.import_module("vllm.utils.argparse_utils").FlexibleArgumentParser()
    parser = importlib.import_module("vllm.entrypoints.launchers.cli_args").make_arg_parser(plain)
    names = {name for action in parser._actions for name in action.option_strings}
    taken = [_is_taken(parser, argv) for argv in json.load(sys.stdin)]
    os.write(out, json.dumps({"names": sorted(names), "taken": taken}).encode())


def _is_taken(parser: Any, argv: list[str]) -> bool:
    with contextlib.redirect_stderr(io.StringIO()):
        try:
            parser.parse_args(["model", *argv])
        except SystemExit:
            return False
    return True


if __name__ == "__main__":
    main()
