"""What becomes of a model as time goes on. Rules and theory: `machine`."""

from __future__ import annotations

from dataclasses import replace

from vllm_circus.lifecycle import events as e
from vllm_circus.lifecycle.events import Moment
from vllm_circus.lifecycle.life import After, Diagnosis, Ending, Life
from vllm_circus.lifecycle.on_health import silence
from vllm_circus.lifecycle.on_process import start_refused
from vllm_circus.lifecycle.states import State
from vllm_circus.lifecycle.steps import (
    KILL_AGAIN,
    SLEEP_PATIENCE,
    START_PATIENCE,
    Step,
    back_to_ready,
    drain,
    enter,
    kill,
    stop,
)
from vllm_circus.plan.types import ModelPlan


def tick_loading(life: Life, _event: e.Tick, now: Moment, plan: ModelPlan) -> Step:
    """Slow is no fault, unless `start_timeout` says so."""
    if life.pid is None:
        return _unheard_of(life, now, plan)
    limit = plan.start_timeout
    if limit is None or now.steady - life.started < limit:
        return life, ()
    why = Diagnosis(f"not ready within {limit:g} s", "raise `start_timeout` where it needs longer", "start_timeout")
    return stop(replace(life, reason=why.cause, fix=why.fix, verdict=why), After.RETRY, now, plan)


def _unheard_of(life: Life, now: Moment, plan: ModelPlan) -> Step:
    if now.steady - life.since < START_PATIENCE:
        return life, ()
    return start_refused(life, e.StartRefused(Diagnosis("circus did not start it")), now, plan)


def tick_ready(life: Life, event: e.Tick, now: Moment, plan: ModelPlan) -> Step:
    """Health for long enough forgives; idleness for long enough ends or puts to sleep."""
    if now.steady - life.since >= plan.restart.reset_after:
        life = replace(life, tries=0, restarts=0)
    limit = plan.idle.after
    if limit is None or not event.calm or life.quiet is None or now.steady - max(life.quiet, life.since) < limit:
        return life, ()
    after = After.SLEEP if plan.idle.then == "sleep" and plan.sleeps else After.REST
    idle = replace(life, level=plan.idle.level, reason=f"nobody asked for it for {limit:g} s", fix="")
    return drain(idle, after, Ending.IDLE, now, None), ()


def tick_unhealthy(life: Life, _event: e.Tick, now: Moment, plan: ModelPlan) -> Step:
    """Silence for long enough is a hang."""
    limit = plan.probe.restart_after
    if limit is None or silence(life, now) < limit:
        return life, ()
    last = f": {life.reason}" if life.state is State.UNHEALTHY and life.reason else ""
    return kill(life, Diagnosis(f"did not answer for {limit:g} s{last}", signature="silent"), now)


def tick_draining(life: Life, event: e.Tick, now: Moment, plan: ModelPlan) -> Step:
    """An end comes when it is due; sleep, where requests still run, does not."""
    if life.due is None:
        return tick_unhealthy(life, event, now, plan)  # a hung engine never drains
    if now.steady < life.due:
        return life, ()
    if life.dozing:
        return kill(life, Diagnosis(f"did not say within {SLEEP_PATIENCE:g} s that it sleeps", signature="sleep"), now)
    if life.after is After.SLEEP:
        return back_to_ready(life, now, f"not put to sleep: requests still ran after {plan.drain_timeout:g} s"), ()
    return stop(life, life.after, now, plan)


def tick_stopping(life: Life, _event: e.Tick, now: Moment, plan: ModelPlan) -> Step:
    """SIGKILL to what does not end, again and again."""
    if life.pid is None:
        return _unheard_of(life, now, plan)
    if life.due is not None and now.steady < life.due:
        return life, ()
    return replace(life, due=now.steady + KILL_AGAIN), (e.Kill(life.pid),)


def tick_backoff(life: Life, _event: e.Tick, now: Moment, _plan: ModelPlan) -> Step:
    """The wait is over."""
    return (life, ()) if life.due is None or now.steady < life.due else (enter(life, State.QUEUED, now), ())
