"""What becomes of a model by what operators, requests and the scheduler want. Rules and theory: `machine`."""

from __future__ import annotations

from dataclasses import replace

from vllm_circus.lifecycle import events as e
from vllm_circus.lifecycle.events import Event, Moment
from vllm_circus.lifecycle.life import After, Ending, Life
from vllm_circus.lifecycle.states import State
from vllm_circus.lifecycle.steps import Step, back_to_ready, drain, enter, forgiven, stop, wake_limit, wish
from vllm_circus.plan.types import ModelPlan

# The scheduler.


def admitted(life: Life, _event: e.Admitted, now: Moment, _plan: ModelPlan) -> Step:
    """Its turn to start."""
    if life.remains:
        return life, ()
    return enter(life, State.LOADING, now), (e.Start(),)


def admitted_asleep(life: Life, _event: e.Admitted, now: Moment, plan: ModelPlan) -> Step:
    """Its turn to wake up."""
    if life.remains or life.pid is None or not life.wished:
        return life, ()
    due = now.steady + wake_limit(life, plan)
    return enter(life, State.WAKING, now, due=due, reason="", fix=""), (e.Wake(life.pid, life.level),)


def turn_over(life: Life, _event: e.TurnOver, now: Moment, plan: ModelPlan) -> Step:
    """Room for another: requests in flight are waited for, however long they take."""
    life = replace(life, reason=_gives_way(plan), fix="")
    if life.state is State.UNHEALTHY:  # those of an engine that does not answer may never end
        return drain(life, After.REST, Ending.TURN, now, now.steady + plan.drain_timeout), ()
    life = replace(life, level=plan.idle.level)
    return drain(life, After.SLEEP if plan.sleeps else After.REST, Ending.TURN, now, None), ()


def leave_the_line(life: Life, _event: e.TurnOver, now: Moment, plan: ModelPlan) -> Step:
    """Nobody waits for it, but for the other: it rests until somebody does."""
    if life.wished:
        return life, ()
    reason, fix = (life.reason, life.fix) if life.tries else (_gives_way(plan), "")
    return enter(life, State.STOPPED, now, on_call=True, reason=reason, fix=fix), ()


def _gives_way(plan: ModelPlan) -> str:
    return f"another model of `{plan.exclusive}` has the turn; a request brings it back"


# Requests.


def wanted(life: Life, _event: e.Wanted, now: Moment, _plan: ModelPlan) -> Step:
    """Only what is on call comes. Earlier crashes are not forgotten: requests would start a broken one for ever."""
    if not life.on_call:
        return life, ()
    if life.state is State.STOPPED:
        return enter(wish(life, now), State.QUEUED, now), ()
    if life.state is State.DRAINING and life.ending is Ending.IDLE and not life.dozing:
        return back_to_ready(life, now), ()
    return wish(life, now), ()


# Operators.


def queue(life: Life, event: e.StartWished | e.RestartWished, now: Moment, _plan: ModelPlan) -> Step:
    """It is to run."""
    awaited = event.awaited if isinstance(event, e.StartWished) else True
    return enter(forgiven(life), State.QUEUED, now, wished=awaited, waits=now.steady), ()


def stay_queued(life: Life, _event: e.RestartWished, now: Moment, _plan: ModelPlan) -> Step:
    """It has no process to be ended, and is to get one anyway."""
    return wish(replace(life, tries=0, restarts=0), now), ()


def wake(life: Life, _event: e.StartWished | e.WakeWished, now: Moment, _plan: ModelPlan) -> Step:
    """It waits for its turn to wake up, since other models may load on its GPUs just now."""
    return wish(life, now), ()


def start_draining(life: Life, event: e.StartWished | e.WakeWished, now: Moment, plan: ModelPlan) -> Step:
    """It goes on where nothing was done to it yet; else it comes again when it is down."""
    if life.after is After.SLEEP or life.on_call:
        if life.dozing or life.ending is Ending.TURN:
            return wish(life, now), ()
        return back_to_ready(life, now), ()
    return (life, ()) if isinstance(event, e.WakeWished) else then_start(life, event, now, plan)


def then_start(life: Life, event: Event, now: Moment, _plan: ModelPlan) -> Step:
    """It comes again when it is down."""
    again = replace(forgiven(life), after=After.START, on_call=False)
    awaited = event.awaited if isinstance(event, e.StartWished) else True
    return (wish(again, now) if awaited else again), ()


def restart_draining(life: Life, event: e.RestartWished, now: Moment, plan: ModelPlan) -> Step:
    """It ends for good and comes again."""
    return _end_draining(then_start(life, event, now, plan)[0], now, plan)


def stop_draining(life: Life, event: e.StopWished, now: Moment, plan: ModelPlan) -> Step:
    """It ends for good."""
    return _end_draining(then_rest(life, event, now, plan)[0], now, plan)


def _end_draining(life: Life, now: Moment, plan: ModelPlan) -> Step:
    """As an operator wants: within the time for that, and at once where nothing is in flight any more."""
    if life.dozing:
        return stop(life, life.after, now, plan)
    due = now.steady + plan.drain_timeout if life.due is None else life.due
    return replace(life, ending=Ending.WISH, due=due), ()


def rest(life: Life, _event: e.StopWished, now: Moment, _plan: ModelPlan) -> Step:
    """It stays down."""
    return enter(forgiven(life), State.STOPPED, now, on_call=False), ()


def off_call(life: Life, event: e.StopWished, now: Moment, plan: ModelPlan) -> Step:
    """At rest already, and from now on no request starts it."""
    return rest(life, event, now, plan) if life.on_call else (life, ())


def then_rest(life: Life, _event: e.StopWished, _now: Moment, _plan: ModelPlan) -> Step:
    """It stays down when it is down."""
    return replace(forgiven(life), after=After.REST, on_call=False, wished=False, waits=None), ()


def end_serving(life: Life, event: e.StopWished | e.RestartWished, now: Moment, plan: ModelPlan) -> Step:
    """Drain first."""
    again = isinstance(event, e.RestartWished)
    due = now.steady + plan.drain_timeout
    draining = drain(forgiven(life), After.START if again else After.REST, Ending.WISH, now, due)
    return replace(draining, wished=again), ()


def end_idle(life: Life, event: e.StopWished | e.RestartWished, now: Moment, plan: ModelPlan) -> Step:
    """It has no requests: it loads, sleeps or wakes up."""
    again = isinstance(event, e.RestartWished)
    life = replace(forgiven(life), on_call=False, wished=again, waits=None)
    return stop(life, After.START if again else After.REST, now, plan)
