"""Put an engine to sleep and wake it up, through the development routes of its own unix socket.

Rules: an engine is believed to sleep, or to be awake, when it says so itself; one that does not say either way is in
nobody knows what state, which is told by no event at all (falling asleep) or as a refusal (waking up): the machine then
gives it a new process. All of it may be asked twice, since a successor asks for what its predecessor may have asked.

The order of waking up from level 2 is that of vLLM's documentation ("Sleep Mode", Online Serving): memory for the
weights, the weights into it, then the cache's memory. What the prefix cache knew is forgotten last.
"""

from __future__ import annotations

import asyncio
import json
import logging

from vllm_circus.lifecycle.events import SleepRefused, Slept, WakeRefused, Woken
from vllm_circus.plan.types import ModelPlan

from .exchange import Answer, Engine, NoAnswer

log = logging.getLogger(__name__)

#: Seconds for falling asleep, and for all of waking up; the machine's own patience is a bit longer, or as long.
_SLEEP_WITHIN = 170.0
_WAKE_WITHIN = 600.0
#: Seconds for the question whether it sleeps.
_ASK_WITHIN = 10.0

_WEIGHTS_FROM_DISK = (
    ("/wake_up?tags=weights", b""),
    ("/collective_rpc", b'{"method": "reload_weights"}'),
    ("/wake_up?tags=kv_cache", b""),
    ("/reset_prefix_cache", b""),
)
_STEPS = {1: (("/wake_up", b""),), 2: _WEIGHTS_FROM_DISK}


class Unwilling(Exception):
    """The engine said no; the text says to what."""


async def put_to_sleep(model: ModelPlan, engine: Engine, pid: int, level: int) -> Slept | SleepRefused | None:
    """Have the engine sleep. None where nobody knows whether it does."""
    fault = ""
    try:
        async with asyncio.timeout(_SLEEP_WITHIN):
            await _post(engine, f"/sleep?level={level}")
    except (Unwilling, NoAnswer, OSError, TimeoutError) as error:
        fault = _words(error, _SLEEP_WITHIN)
    asleep = await is_sleeping(engine)
    if not fault and asleep:
        return Slept(pid)
    if asleep is False:
        return SleepRefused(pid, fault or "it says that it is awake")
    log.warning("%s: %s; whether it sleeps is unknown", model.name, fault or "it does not say that it sleeps")
    return None


async def wake_up(engine: Engine, pid: int, level: int) -> Woken | WakeRefused:
    """Wake the engine up from a sleep of that level."""
    try:
        async with asyncio.timeout(_WAKE_WITHIN):
            for path, body in _STEPS[level]:
                await _post(engine, path, body)
    except (Unwilling, NoAnswer, OSError, TimeoutError) as error:
        return WakeRefused(pid, _words(error, _WAKE_WITHIN))
    if await is_sleeping(engine) is False:
        return Woken(pid)
    return WakeRefused(pid, "it does not say that it is awake")


async def _post(engine: Engine, path: str, body: bytes = b"") -> None:
    """Raises Unwilling, NoAnswer or OSError."""
    answer = await engine.ask("POST", path, body)
    if answer.status != 200:
        raise Unwilling(f"{path} answers {answer.status}")
    if _document(answer).get("success") is False:  # of /reset_prefix_cache, where requests still hold blocks
        raise Unwilling(f"{path} did not succeed")


async def is_sleeping(engine: Engine, within: float = _ASK_WITHIN) -> bool | None:
    """What it says itself; None where it does not say `within` these seconds. Without such a route it cannot sleep."""
    try:
        async with asyncio.timeout(within):
            answer = await engine.ask("GET", "/is_sleeping")
    except (NoAnswer, OSError, TimeoutError):
        return None
    if answer.status == 404:
        return False
    said = _document(answer).get("is_sleeping")
    return said if answer.status == 200 and isinstance(said, bool) else None


def _document(answer: Answer) -> dict[str, object]:
    """The answer's JSON object; an empty one where it is none."""
    try:
        found = json.loads(answer.body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _words(error: Exception, limit: float) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {limit:g} s"
    return str(error) or type(error).__name__
