"""Ask an engine how it is. A probe never raises and never takes longer than its time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Iterable
from pathlib import Path

from vllm_circus.lifecycle.events import ProbeFailed, ProbeOk
from vllm_circus.plan.types import ModelPlan

from .exchange import Engine, NoAnswer


async def probe(
    model: ModelPlan, *, asked: float, secrets: Path | None, names: Collection[str] = ()
) -> ProbeOk | ProbeFailed:
    """How the engine is: its health path answers 200, and it lists all of `names`.

    `asked` is the steady time of now. `secrets` is the instance's folder of engine keys.
    """
    try:
        async with asyncio.timeout(model.probe.timeout):
            fault = await _fault(model, Engine(model, secrets), names)
    except TimeoutError:
        return ProbeFailed(asked, f"no answer within {model.probe.timeout:g} s")
    except (NoAnswer, OSError) as error:
        return ProbeFailed(asked, str(error) or type(error).__name__)
    return ProbeFailed(asked, fault, answered=True) if fault else ProbeOk(asked)


def missing_names(body: bytes, wanted: Iterable[str]) -> tuple[str, ...] | None:
    """Which names a `/v1/models` answer lacks; None where it is no such answer."""
    try:
        listed = {str(item["id"]) for item in json.loads(body)["data"]}
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return tuple(name for name in wanted if name not in listed)


async def _fault(model: ModelPlan, engine: Engine, names: Collection[str]) -> str:
    """What is wrong; empty when nothing is."""
    health = await engine.ask("GET", model.probe.path, keyed=False)
    if health.status != 200:
        return f"{model.probe.path} answers {health.status}"
    if not names:
        return ""
    listed = await engine.ask("GET", "/v1/models")
    if listed.status != 200:
        return f"/v1/models answers {listed.status}"
    missing = missing_names(listed.body, names)
    if missing is None:
        return "/v1/models answers with something else than a list of models"
    return f"does not serve {', '.join(missing)}" if missing else ""
