"""What becomes of a model when a process comes or goes. Rules and theory: `machine`."""

from __future__ import annotations

from dataclasses import replace

from vllm_circus.lifecycle import events as e
from vllm_circus.lifecycle.events import Action, Moment
from vllm_circus.lifecycle.life import After, Life
from vllm_circus.lifecycle.states import State
from vllm_circus.lifecycle.steps import Step, crashed, enter, forgiven, judged, settled
from vllm_circus.plan.types import ModelPlan

_STARTS = frozenset({State.LOADING, State.READY, State.UNHEALTHY, State.WAKING})


def spawned(life: Life, event: e.Spawned, now: Moment, plan: ModelPlan) -> Step:
    """A process is there: the one asked for, one that an operator started by hand, or one after another unheard."""
    if event.pid == life.pid or event.pid in life.remains:
        return life, ()
    actions: tuple[Action, ...] = ()
    stopped_meanwhile = life.state is State.STOPPING and life.pid is None
    if life.state in {State.STOPPED, State.FAILED}:  # by hand
        life = forgiven(life)
    if life.pid is not None:  # replaced without our hearing of its end
        actions = (e.CleanUp(life.pid),)
        life = replace(life, remains=(*life.remains, life.pid), dead=life.pid)
    fresh = replace(
        life,
        pid=event.pid,
        started=now.steady,
        started_at=now.wall,
        digest=plan.digest,
        names=plan.serves,
        failures=0,
        silent_since=None,
        heard=None,
        iterations=None,
        frozen=None,
        verdict=None,
    )
    if stopped_meanwhile:
        return replace(fresh, due=now.steady + plan.stop_timeout), (*actions, e.Terminate(event.pid))
    if life.state is State.LOADING and not actions:
        return fresh, ()
    return enter(fresh, State.LOADING, now), actions


def exited(life: Life, event: e.Exited, now: Moment, plan: ModelPlan) -> Step:
    """The process is gone: as it should, or by a crash."""
    if event.pid != life.pid:
        return life, ()
    healthy = life.state is State.READY and now.steady - life.since >= plan.restart.reset_after
    if healthy:
        life = replace(life, tries=0, restarts=0)
    gone = replace(
        life,
        pid=None,
        started_at=None,
        names=(),
        failures=0,
        silent_since=None,
        remains=(*life.remains, event.pid),
        dead=event.pid,
    )
    falls_asleep = life.state is State.DRAINING and life.after is After.SLEEP
    if life.state in {State.DRAINING, State.STOPPING} and not falls_asleep:
        return settled(gone, now, plan, event.why), (e.CleanUp(event.pid),)
    failed_start = life.state in _STARTS and not healthy
    return crashed(gone, event.why, now, plan, failed_start=failed_start), (e.CleanUp(event.pid),)


def explained(life: Life, event: e.Explained, _now: Moment, _plan: ModelPlan) -> Step:
    """The cause of the last crash, known by now."""
    if life.crash is None or event.pid != life.crash.pid:
        return life, ()
    why = judged(life, event.why)
    return replace(life, reason=why.cause, fix=why.fix, crash=replace(life.crash, why=why)), ()


def withdrawn(life: Life, event: e.Withdrawn, now: Moment, plan: ModelPlan) -> Step:
    """circus ends it at somebody else's wish: it rests, and no request starts it."""
    if event.pid != life.pid:
        return life, ()
    life = replace(life, after=After.REST, reason="stopped through circus", fix="", verdict=None)
    life = replace(life, on_call=False, wished=False, waits=None)
    if life.state is State.STOPPING:
        return life, ()
    return enter(life, State.STOPPING, now, due=now.steady + plan.stop_timeout), ()


def start_refused(life: Life, event: e.StartRefused, now: Moment, plan: ModelPlan) -> Step:
    """No process came."""
    if life.pid is not None:
        return life, ()
    return (settled(life, now, plan) if life.state is State.STOPPING else crashed(life, event.why, now, plan)), ()


def cleaned(life: Life, event: e.Cleaned, _now: Moment, _plan: ModelPlan) -> Step:
    """Nothing of a session is left."""
    return replace(life, remains=tuple(pid for pid in life.remains if pid != event.pid)), ()
