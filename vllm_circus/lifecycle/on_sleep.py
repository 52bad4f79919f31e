"""What becomes of a model while it falls asleep, sleeps and wakes up. Rules and theory: `machine`."""

from __future__ import annotations

from dataclasses import replace

from vllm_circus.lifecycle import events as e
from vllm_circus.lifecycle.events import Moment
from vllm_circus.lifecycle.life import After, Diagnosis, Ending, Life
from vllm_circus.lifecycle.states import State
from vllm_circus.lifecycle.steps import SLEEP_PATIENCE, Step, back_to_ready, drain, enter, kill, stop, wake_limit
from vllm_circus.plan.types import ModelPlan


def sleep_wished(life: Life, event: e.SleepWished, now: Moment, plan: ModelPlan) -> Step:
    """An operator's: it waits for requests in flight, but cuts none."""
    if not plan.sleeps or life.dozing or (life.state is State.DRAINING and life.ending is Ending.TURN):
        return life, ()
    life = replace(life, level=event.level, wished=False, waits=None, reason="", fix="")
    return drain(life, After.SLEEP, Ending.WISH, now, now.steady + plan.drain_timeout), ()


def sleep_on(life: Life, _event: e.SleepWished, _now: Moment, _plan: ModelPlan) -> Step:
    """It sleeps already; whoever wanted it awake is overruled."""
    return replace(life, wished=False, waits=None), ()


def drained(life: Life, _event: e.Drained, now: Moment, plan: ModelPlan) -> Step:
    """Nothing is in flight: to bed, or to the end."""
    if life.dozing or life.pid is None:
        return life, ()
    if life.after is not After.SLEEP:
        return stop(life, life.after, now, plan)
    return replace(life, dozing=True, due=now.steady + SLEEP_PATIENCE), (e.Sleep(life.pid, life.level),)


def slept(life: Life, event: e.Slept, now: Moment, _plan: ModelPlan) -> Step:
    """It sleeps; whoever waits for it meanwhile has it woken up in its turn."""
    if event.pid != life.pid or not life.dozing:
        return life, ()
    return enter(life, State.SLEEPING, now, on_call=True), ()


def found_asleep(life: Life, event: e.FoundAsleep, now: Moment, _plan: ModelPlan) -> Step:
    """It answers probes and no requests. How deeply it sleeps is unknown: what wakes up from level 2 does from both."""
    if event.pid != life.pid:
        return life, ()
    return enter(replace(life, level=2, wished=False), State.SLEEPING, now, on_call=True), ()


def sleep_refused(life: Life, event: e.SleepRefused, now: Moment, plan: ModelPlan) -> Step:
    """It stays awake, unless another one needs its GPUs."""
    if event.pid != life.pid or not life.dozing:
        return life, ()
    reason = f"it does not go to sleep: {event.cause}"
    if life.ending is Ending.TURN:
        return stop(replace(life, reason=reason), After.REST, now, plan)
    return back_to_ready(life, now, reason), ()


def woken(life: Life, event: e.Woken, now: Moment, plan: ModelPlan) -> Step:
    """It says that it is awake; now a probe has to say so."""
    if event.pid != life.pid or life.woken is not None:
        return life, ()
    life = replace(life, woken=now.steady, iterations=None, frozen=None, heard=None)
    return replace(life, due=now.steady + wake_limit(life, plan)), ()


def wake_refused(life: Life, event: e.WakeRefused, now: Moment, _plan: ModelPlan) -> Step:
    """Nobody knows what state it is in: a new process is safe."""
    if event.pid != life.pid or life.woken is not None:
        return life, ()
    return kill(life, Diagnosis(f"it did not wake up: {event.cause}", signature="wake"), now)


def tick_waking(life: Life, _event: e.Tick, now: Moment, plan: ModelPlan) -> Step:
    """An engine that does not wake up in time is started anew."""
    if life.due is None or now.steady < life.due:
        return life, ()
    limit = wake_limit(life, plan)
    words = "did not answer" if life.woken is not None else "did not wake up"
    return kill(life, Diagnosis(f"it {words} within {limit:g} s", signature="wake"), now)
