"""The steps that the machine's handlers are made of. Rules and theory: `machine`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from vllm_circus.lifecycle import events as e
from vllm_circus.lifecycle.backoff import restart_delay
from vllm_circus.lifecycle.events import Action, Moment
from vllm_circus.lifecycle.life import After, Crash, Diagnosis, Ending, Life
from vllm_circus.lifecycle.states import State
from vllm_circus.plan.types import ModelPlan

#: Seconds after which a start that nothing was heard of counts as refused (circus is asked for less long than this).
START_PATIENCE = 90.0
#: Seconds between SIGKILLs to a process that does not go (it hangs in the kernel).
KILL_AGAIN = 5.0
#: Seconds that an engine may take to go to sleep (it copies its weights), and to wake up where no `start_timeout` says
#: otherwise (it may have to read them again).
SLEEP_PATIENCE = 180.0
WAKE_PATIENCE = 600.0

Step = tuple[Life, tuple[Action, ...]]
Handler = Callable[[Life, Any, Moment, ModelPlan], Step]

_MAY_BE_ON_CALL = frozenset({State.STOPPED, State.DRAINING, State.STOPPING, State.SLEEPING})
_MAY_BE_WISHED = frozenset({State.QUEUED, State.LOADING, State.DRAINING, State.STOPPING, State.SLEEPING, State.WAKING})
_MAY_WAIT = frozenset({State.QUEUED, State.DRAINING, State.STOPPING, State.SLEEPING})

#: Seconds between the clocks' ways above which the wall clock was set.
_CLOCK_SET = 2.0


def enter(life: Life, state: State, now: Moment, **changes: Any) -> Life:
    """The life in another state: what means nothing there is forgotten."""
    waits = now.steady if state is State.QUEUED and life.waits is None else life.waits
    forgotten = {
        "phase": "",
        "due": None,
        "dozing": False,
        "woken": None,
        "on_call": life.on_call and state in _MAY_BE_ON_CALL,
        "wished": life.wished and state in _MAY_BE_WISHED,
        "waits": waits if state in _MAY_WAIT else None,
    }
    return replace(life, state=state, since=now.steady, since_at=now.wall, **{**forgotten, **changes})


def by_the_clock(life: Life, now: Moment) -> Life:
    """The life with its times by the wall clock as it is set now: who set it made nothing younger or older.

    The clock may well go a little faster or slower than the steady one: that is let pass.
    """
    off = (now.wall - now.steady) - (life.since_at - life.since)
    if not life.since_at or abs(off) < _CLOCK_SET:
        return life
    started_at = None if life.started_at is None else life.started_at + off
    crash = life.crash and replace(life.crash, at=life.crash.at + off)
    return replace(life, since_at=life.since_at + off, started_at=started_at, crash=crash)


def forgiven(life: Life) -> Life:
    """With a clean slate: an operator's wish begins anew. The last crash stays known."""
    return replace(life, tries=0, restarts=0, reason="", fix="", verdict=None)


def wish(life: Life, now: Moment) -> Life:
    """Somebody waits for it to be ready, from now on or since earlier."""
    return replace(life, wished=True, waits=now.steady if life.waits is None else life.waits)


def back_to_ready(life: Life, now: Moment, reason: str = "") -> Life:
    """It was to end or to sleep, and does not: nothing was done to it yet."""
    return enter(life, State.READY, now, reason=reason, fix="", quiet=None)


def drain(life: Life, after: After, ending: Ending, now: Moment, due: float | None) -> Life:
    """No new requests. `due` is when it is over at the latest; None waits for as long as requests run."""
    on_call = ending is not Ending.WISH or after is After.SLEEP
    return enter(life, State.DRAINING, now, after=after, ending=ending, due=due, on_call=on_call)


def stop(life: Life, after: After, now: Moment, plan: ModelPlan) -> Step:
    """SIGTERM now, or as soon as the process that was asked for is there."""
    stopping = enter(life, State.STOPPING, now, after=after, due=now.steady + plan.stop_timeout)
    return stopping, (() if life.pid is None else (e.Terminate(life.pid),))


def kill(life: Life, why: Diagnosis, now: Moment) -> Step:
    """SIGKILL at once: whoever does not answer does not act on SIGTERM either, and may hold a GPU."""
    changes = {"after": After.RETRY, "due": now.steady + KILL_AGAIN}
    doomed = enter(life, State.STOPPING, now, reason=why.cause, fix=why.fix, verdict=why, **changes)
    return doomed, (() if life.pid is None else (e.Kill(life.pid),))


def settled(life: Life, now: Moment, plan: ModelPlan, how: Diagnosis | None = None) -> Life:
    """After an end that was wanted; `how` the process ended, where there was one."""
    if life.after is After.RETRY:
        return crashed(life, judged(life, how or Diagnosis(life.reason)), now, plan)
    return enter(life, State.QUEUED if life.wished or life.after is After.START else State.STOPPED, now)


def judged(life: Life, how: Diagnosis) -> Diagnosis:
    """Why it ended: our own verdict where we ended it, with the traces that it left."""
    if life.verdict is None:
        return how
    return replace(life.verdict, code=how.code, evidence=life.verdict.evidence or how.evidence)


def crashed(life: Life, why: Diagnosis, now: Moment, plan: ModelPlan, *, failed_start: bool = True) -> Life:
    """After an end that nobody asked for, or a start that came to nothing."""
    pid = life.dead if life.dead in life.remains else None
    ran = now.steady - life.started if pid is not None else 0.0
    life = replace(life, reason=why.cause, fix=why.fix, crash=Crash(now.wall, why, pid, ran))
    if life.on_call and not life.wished:
        return enter(life, State.STOPPED, now)
    life = replace(life, wished=False, tries=life.tries + failed_start)
    most = plan.restart.max_tries
    if plan.restart.policy == "never" or (most is not None and life.tries >= most):
        return enter(life, State.FAILED, now)
    wait = restart_delay(plan.restart, life.restarts)
    life = replace(life, restarts=life.restarts + 1, waits=None)
    if wait == 0:
        return enter(life, State.QUEUED, now)
    return enter(life, State.BACKOFF, now, due=now.steady + wait)


def wake_limit(life: Life, plan: ModelPlan) -> float:
    """Seconds that it may take to wake up, or once it says that it did, to answer."""
    longest = WAKE_PATIENCE if plan.start_timeout is None else plan.start_timeout
    return longest if life.woken is None else plan.probe.restart_after or longest


def in_states(handler: Handler, *states: State) -> dict[State, Handler]:
    """The same handler for several states."""
    return dict.fromkeys(states, handler)
