"""What is told of a model: its life in the words of the bus. Pure.

Text from outside (logs, engines) is cleaned here. Durations are guessed from earlier ones of the same model.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from vllm_circus import logline
from vllm_circus.bus.messages import ModelState
from vllm_circus.lifecycle.events import Moment
from vllm_circus.lifecycle.life import After, Diagnosis, Life
from vllm_circus.lifecycle.phases import expected_load, remaining_load
from vllm_circus.lifecycle.states import State
from vllm_circus.plan.types import ModelPlan

#: Seconds that a load may take of which nobody knows anything yet.
_SOME_LOAD = 5.0
_ENDING = frozenset({State.DRAINING, State.STOPPING})
_ASLEEP = frozenset({State.SLEEPING, State.WAKING})


@dataclass(frozen=True)
class Known:
    """How long its last loads took, and waking up, in seconds."""

    loads: tuple[float, ...] = ()
    wakes: tuple[float, ...] = ()


def show(model: ModelPlan, life: Life, known: Known, now: Moment, note: str = "") -> ModelState:
    """The state as it is told; `note` is the reason where the life has none of its own."""
    return ModelState(
        name=model.name,
        state=life.state,
        reason=logline.clean(_reason(model, life, now) or note),
        since_at=life.since_at,
        pid=life.pid,
        started_at=life.started_at,
        phase=logline.clean(life.phase),
        tries=life.tries,
        retry_after=_retry_after(life, known, now),
        expected=expected_load(known.wakes if life.state in _ASLEEP else known.loads),
        fix=logline.clean(life.fix),
        awaited=life.wished,
        on_call=life.on_call,
        names=() if life.pid is None or life.names == model.serves else life.names,
        crash=life.crash and replace(life.crash, why=_clean(life.crash.why)),
        probed_at=_probed_at(life, now),
        failures=life.failures,
        restarts=life.restarts,
    )


def _probed_at(life: Life, now: Moment) -> float | None:
    """When this process last answered a probe."""
    if life.pid is None or life.answered <= life.started:
        return None
    return now.wall - (now.steady - life.answered)


def _clean(why: Diagnosis) -> Diagnosis:
    evidence = tuple(map(logline.clean, why.evidence))
    return replace(why, cause=logline.clean(why.cause), fix=logline.clean(why.fix), evidence=evidence)


def _reason(model: ModelPlan, life: Life, now: Moment) -> str:
    if life.state is State.BACKOFF and life.due is not None:
        return f"{life.reason}; next try in {max(0.0, life.due - now.steady):.0f} s"
    if life.state is State.QUEUED and life.remains:
        return f"what process {life.remains[0]} started is still ending"
    if life.state is State.SLEEPING and life.wished:
        return "waits for its turn to wake up"
    if life.state is State.QUEUED and model.exclusive is not None and not life.reason:
        return f"waits for its turn among the models of `{model.exclusive}`"
    return life.reason


def _retry_after(life: Life, known: Known, now: Moment) -> float | None:
    """Seconds until it is ready, if it is on its way or a request would bring it; None where nobody can say."""
    if life.state is State.LOADING:
        return remaining_load(known.loads, now.steady - life.since)
    if life.state is State.WAKING:
        return remaining_load(known.wakes, now.steady - life.since)
    ends = life.state in _ENDING
    if life.state is State.SLEEPING or (ends and life.after is After.SLEEP):
        return expected_load(known.wakes)
    expected = expected_load(known.loads)
    if life.state is State.BACKOFF and life.due is not None:
        return max(0.0, life.due - now.steady) + (_SOME_LOAD if expected is None else expected)
    comes = life.state is State.QUEUED or life.on_call or (ends and (life.wished or life.after is After.START))
    return expected if comes else None
