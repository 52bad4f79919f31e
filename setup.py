"""The relay as machine code, where the environment asks for it: `VLLM_CIRCUS_COMPILE=1 pip install .`

Rules: this is the one place that names what is compiled. The sources stay what they are and are installed as well;
where nobody asks they run as ever. Everything else about the distribution is in pyproject.toml and setup.cfg.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from setuptools import setup

#: What a request and a piece of a stream pass through. How replicas are chosen and who waits stays interpreted: the
#: tests give it stand-ins, which compiled code would not take.
COMPILED = (
    "allow", "backend", "bodymodel", "connection", "cors", "counters", "downstream", "early", "errors", "exchange",
    "fields", "framing", "glance", "head", "incoming", "intake", "keys", "pace", "poller", "reception", "relay",
    "reply", "request", "skim", "transport", "upstream",
)  # fmt: skip
#: One version: what another makes of the same sources nobody has tested. pydantic tells it the types of the limits.
NEEDED = ("mypy==2.4.1", "pydantic>=2.7")


def main() -> None:
    """Build what is asked for."""
    if os.environ.get("VLLM_CIRCUS_COMPILE") == "1":
        # other commands ask for metadata, before what is needed is there; and an editable checkout stays interpreted
        setup(setup_requires=NEEDED, ext_modules=_modules() if "bdist_wheel" in sys.argv else [])
    else:
        setup()


def _modules() -> list[Any]:
    from mypyc.build import mypycify

    # of what is imported from elsewhere only the types would be used, and a build has few of these packages
    options = ["--follow-imports=silent", "--ignore-missing-imports", "--no-warn-unused-ignores"]
    return mypycify([*options, *(f"vllm_circus/proxy/{name}.py" for name in COMPILED)], opt_level="3")


main()
