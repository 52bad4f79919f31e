"""How long to wait before a restart."""

from __future__ import annotations

from vllm_circus.config.models import Restart


def restart_delay(policy: Restart, restarts: int) -> float:
    """Seconds to wait when `restarts` restarts in a row were made already: 0 for the first, then growing to the cap."""
    if restarts == 0:
        return 0.0
    try:
        wait = policy.first_delay * policy.factor ** (restarts - 1)
    except OverflowError:
        return policy.max_delay
    return min(wait, policy.max_delay)
