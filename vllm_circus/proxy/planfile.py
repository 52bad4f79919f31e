"""The plan.json that a worker goes by, read again when the health plugin says that it goes by another one.

Rules: a plan that cannot be read, or whose keys cannot, changes nothing; that is said once, and tried again with the
next word of the health plugin. What is decided when a worker starts stays as it is until it is started anew.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping

from vllm_circus.errors import CircusError
from vllm_circus.plan.held import as_held, held_back
from vllm_circus.plan.types import Plan, digest_of, load_plan
from vllm_circus.proxy.keys import Keys, load_keys

log = logging.getLogger(__name__)


class PlanFile:
    """See the module. `digest` names the file that `plan` was read from; see `plan.types.digest_of`."""

    def __init__(self, plan: Plan, digest: str, environ: Mapping[str, str] = os.environ) -> None:
        self._plan = plan
        self._digest = digest
        self._environ = environ
        self._refused = ""

    def read_again(self, told: str) -> tuple[Plan, Keys] | None:
        """The plan and the keys, where the health plugin goes by the plan `told` and there is a new one; else None."""
        if told in {"", self._digest}:
            return None
        try:
            data = self._plan.instance.plan.read_bytes()
            digest = digest_of(data)
            if digest == self._digest:  # this worker was started since, and the health plugin has yet to follow
                return None
            new = load_plan(data)
            plan = as_held(self._plan, new)
            keys = load_keys(plan.proxy.keys_file, plan.proxy.keys_env, self._environ)
        except (OSError, ValueError, CircusError) as error:
            if told != self._refused:
                log.error("the new plan cannot be read, the old one stays: %s", error)  # noqa: TRY400 - no bug
                self._refused = told
            return None
        if fixed := held_back(self._plan.proxy, new.proxy):
            log.warning("the new plan's %s needs the set to be started anew", ", ".join(f"proxy.{it}" for it in fixed))
        self._plan = plan
        self._digest = digest
        return self._plan, keys
