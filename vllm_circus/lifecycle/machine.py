"""The life of one model as a state machine: pure, and driven by a table.

States (`states.State`), and whether there is a process in them:

    stopped   no    nobody wants it to run
    queued    no    it is to run and waits for its turn (`scheduler`)
    loading   soon  circus was asked for a process, or has one that is not ready yet
    ready     yes   it answers, and gets requests
    unhealthy yes   it was ready and does not answer any more
    draining  yes   it is to end: no new requests, those in flight go on
    stopping  yes   it was told to end (SIGTERM, later SIGKILL)
    backoff   no    it died; the wait before the next start
    failed    no    it died too often; only an operator starts it again

`advance` takes a life, an event and the time, and gives the life after it and what is to be done. Rules:

1. An event that means nothing in a state changes nothing there: late and doubled events are harmless.
2. After `Start` there is no other `Start` before that process ended, or before it is clear that none came.
3. A process that is gone leaves its pid in `remains` until `Cleaned` says that nothing of its session is left. The
   scheduler admits nobody with remains, so no engine starts beside the leftovers of its predecessor.
4. Our own stops go by signals and never make circus publish `kill`. So a `kill` is always somebody else's wish
   (`Withdrawn`), and is respected: the model rests until somebody starts it.
5. An end that nobody asked for is a crash, exit code 0 included. So is one that we brought about since the engine
   was silent (`After.RETRY`).
6. `tries` counts starts in a row that failed: the process ended before it had been ready for `reset_after`.
   `restarts` counts restarts in a row, which the waits grow with.
7. A loading model is never ended for being slow, unless `start_timeout` says so.
8. Only the steady clock decides. Everything in a `Life` survives a restart of whoever keeps it (`resume`).
9. `sleeping` is reached by no event of today: nothing here sets it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from vllm_circus.lifecycle import events as e
from vllm_circus.lifecycle.backoff import restart_delay
from vllm_circus.lifecycle.events import Action, Event, Moment
from vllm_circus.lifecycle.life import After, Life
from vllm_circus.lifecycle.states import State
from vllm_circus.plan.types import ModelPlan

#: Seconds after which a start that nothing was heard of counts as refused (circus is asked for less long than this).
START_PATIENCE = 90.0
#: Seconds between SIGKILLs to a process that does not go (it hangs in the kernel).
KILL_AGAIN = 5.0


Step = tuple[Life, tuple[Action, ...]]
Handler = Callable[[Life, Any, Moment, ModelPlan], Step]


def advance(life: Life, event: Event, now: Moment, plan: ModelPlan) -> Step:
    """The life after an event, and what is to be done."""
    handler = TABLE[type(event)].get(life.state)
    return handler(life, event, now, plan) if handler else (life, ())


def resume(life: Life, pid: int | None, now: Moment, plan: ModelPlan) -> Step:
    """A life that was written down earlier, taken up again by a new keeper; `pid` is what circus runs now, if any.

    What runs goes on running; what was asked for and perhaps not done is asked for again.
    """
    actions: tuple[Action, ...] = tuple(e.CleanUp(gone) for gone in life.remains)
    if life.pid is not None and life.pid != pid:
        life, more = advance(life, e.Exited(life.pid, "it ended while nobody watched"), now, plan)
        actions += more
    if pid is not None:
        life, more = advance(life, e.Spawned(pid), now, plan)
        actions += more
    elif life.state is State.LOADING:
        life = _enter(life, State.QUEUED, now)
    elif life.state is State.STOPPING:
        life = _settled(life, now, plan)
    if life.state is State.STOPPING and life.pid is not None and not more_of(actions, e.Terminate):
        actions += (e.Terminate(life.pid),)
    return advance(life, e.Resumed(), now, plan)[0], actions


def more_of(actions: tuple[Action, ...], kind: type[Action]) -> bool:
    """Whether an action of a kind is among them."""
    return any(isinstance(action, kind) for action in actions)


def _enter(life: Life, state: State, now: Moment, **changes: Any) -> Life:
    changes = {"phase": "", "due": None, **changes}
    return replace(life, state=state, since=now.steady, since_at=now.wall, **changes)


# Processes.


def _spawned(life: Life, event: e.Spawned, now: Moment, plan: ModelPlan) -> Step:
    if event.pid == life.pid or event.pid in life.remains:
        return life, ()
    actions: tuple[Action, ...] = ()
    by_hand = life.state in {State.STOPPED, State.FAILED}
    stopped_meanwhile = life.state is State.STOPPING and life.pid is None
    if life.pid is not None:  # replaced without our hearing of its end
        actions = (e.CleanUp(life.pid),)
        life = replace(life, remains=(*life.remains, life.pid), dead=life.pid)
    fresh = replace(
        life,
        pid=event.pid,
        started=now.steady,
        started_at=now.wall,
        failures=0,
        silent_since=None,
        tries=0 if by_hand else life.tries,
        restarts=0 if by_hand else life.restarts,
        reason="" if by_hand else life.reason,
    )
    if stopped_meanwhile:
        return replace(fresh, due=now.steady + plan.stop_timeout), (*actions, e.Terminate(event.pid))
    if life.state is State.LOADING and not actions:
        return fresh, ()
    return _enter(fresh, State.LOADING, now), actions


def _exited(life: Life, event: e.Exited, now: Moment, plan: ModelPlan) -> Step:
    if event.pid != life.pid:
        return life, ()
    healthy = life.state is State.READY and now.steady - life.since >= plan.restart.reset_after
    if healthy:
        life = replace(life, tries=0, restarts=0)
    gone = replace(
        life,
        pid=None,
        started_at=None,
        failures=0,
        silent_since=None,
        remains=(*life.remains, event.pid),
        dead=event.pid,
    )
    ended = (
        _settled(gone, now, plan)
        if life.state in {State.DRAINING, State.STOPPING}
        else _crashed(gone, event.cause, now, plan, failed_start=not healthy)
    )
    return ended, (e.CleanUp(event.pid),)


def _settled(life: Life, now: Moment, plan: ModelPlan) -> Life:
    """After an end that was wanted."""
    if life.after is After.RETRY:
        return _crashed(life, life.reason, now, plan)
    return _enter(life, State.QUEUED if life.after is After.START else State.STOPPED, now)


def _crashed(life: Life, cause: str, now: Moment, plan: ModelPlan, *, failed_start: bool = True) -> Life:
    tries = life.tries + failed_start
    most = plan.restart.max_tries
    if plan.restart.policy == "never" or (most is not None and tries >= most):
        return _enter(life, State.FAILED, now, tries=tries, reason=cause)
    wait = restart_delay(plan.restart, life.restarts)
    changes = {"tries": tries, "restarts": life.restarts + 1, "reason": cause}
    if wait == 0:
        return _enter(life, State.QUEUED, now, **changes)
    return _enter(life, State.BACKOFF, now, due=now.steady + wait, **changes)


def _explained(life: Life, event: e.Explained, _now: Moment, _plan: ModelPlan) -> Step:
    return (replace(life, reason=event.cause) if event.pid == life.dead else life), ()


def _withdrawn(life: Life, event: e.Withdrawn, now: Moment, plan: ModelPlan) -> Step:
    if event.pid != life.pid:
        return life, ()
    changes = {"after": After.REST, "reason": "stopped through circus"}
    if life.state is State.STOPPING:
        return replace(life, **changes), ()  # type: ignore[arg-type] # the two fields' types differ
    return _enter(life, State.STOPPING, now, due=now.steady + plan.stop_timeout, **changes), ()


def _start_refused(life: Life, event: e.StartRefused, now: Moment, plan: ModelPlan) -> Step:
    if life.pid is not None:
        return life, ()
    return (_settled(life, now, plan) if life.state is State.STOPPING else _crashed(life, event.cause, now, plan)), ()


def _cleaned(life: Life, event: e.Cleaned, _now: Moment, _plan: ModelPlan) -> Step:
    return replace(life, remains=tuple(pid for pid in life.remains if pid != event.pid)), ()


# What the engine says.


def _probe_ok(life: Life, event: e.ProbeOk, now: Moment, _plan: ModelPlan) -> Step:
    if life.pid is None or event.asked < life.started:  # somebody else answered
        return life, ()
    well = replace(life, failures=0, silent_since=None, answered=event.asked)
    return (well if life.state is State.READY else _enter(well, State.READY, now, reason="")), ()


def _probe_failed(life: Life, event: e.ProbeFailed, now: Moment, plan: ModelPlan) -> Step:
    if event.asked < max(life.started, life.answered):  # overtaken by a later probe that went well
        return life, ()
    since = event.asked if life.silent_since is None else life.silent_since
    ill = replace(life, failures=life.failures + 1, silent_since=since)
    if life.state is State.UNHEALTHY:
        return replace(ill, reason=event.cause), ()
    if ill.failures >= plan.probe.failures:
        return _enter(ill, State.UNHEALTHY, now, reason=event.cause), ()
    return ill, ()


def _not_ready_yet(life: Life, event: e.ProbeFailed, _now: Moment, _plan: ModelPlan) -> Step:
    """Silence is normal while it loads; an answer that is wrong is worth telling."""
    told = event.answered and life.pid is not None and event.asked >= life.started
    return (replace(life, reason=event.cause) if told else life), ()


def _phase_seen(life: Life, event: e.PhaseSeen, _now: Moment, _plan: ModelPlan) -> Step:
    return replace(life, phase=event.phase), ()


def _resumed(life: Life, _event: e.Resumed, now: Moment, _plan: ModelPlan) -> Step:
    silent = now.steady if life.state is State.UNHEALTHY else None
    return replace(life, failures=0, silent_since=silent), ()


# What operators and the scheduler want.


def _admitted(life: Life, _event: e.Admitted, now: Moment, _plan: ModelPlan) -> Step:
    if life.remains:
        return life, ()
    return _enter(life, State.LOADING, now), (e.Start(),)


def _queue(life: Life, _event: Event, now: Moment, _plan: ModelPlan) -> Step:
    return _enter(life, State.QUEUED, now, tries=0, restarts=0, reason=""), ()


def _rest(life: Life, _event: Event, now: Moment, _plan: ModelPlan) -> Step:
    return _enter(life, State.STOPPED, now, tries=0, restarts=0, reason=""), ()


def _then_rest(life: Life, _event: Event, _now: Moment, _plan: ModelPlan) -> Step:
    return replace(life, after=After.REST, tries=0, restarts=0, reason=""), ()


def _then_start(life: Life, _event: Event, _now: Moment, _plan: ModelPlan) -> Step:
    return replace(life, after=After.START, tries=0, restarts=0, reason=""), ()


def _drain(life: Life, event: Event, now: Moment, plan: ModelPlan) -> Step:
    after = After.START if isinstance(event, e.RestartWished) else After.REST
    due = now.steady + plan.drain_timeout
    return _enter(life, State.DRAINING, now, due=due, after=after, tries=0, restarts=0, reason=""), ()


def _give_up_loading(life: Life, event: Event, now: Moment, plan: ModelPlan) -> Step:
    after = After.START if isinstance(event, e.RestartWished) else After.REST
    return _stop(replace(life, tries=0, restarts=0, reason=""), after, now, plan)


def _drained(life: Life, _event: Event, now: Moment, plan: ModelPlan) -> Step:
    return _stop(life, life.after, now, plan)


def _stop(life: Life, after: After, now: Moment, plan: ModelPlan) -> Step:
    """SIGTERM now, or as soon as the process that was asked for is there."""
    stopping = _enter(life, State.STOPPING, now, after=after, due=now.steady + plan.stop_timeout)
    return stopping, (() if life.pid is None else (e.Terminate(life.pid),))


# Time.


def _tick_loading(life: Life, _event: e.Tick, now: Moment, plan: ModelPlan) -> Step:
    if life.pid is None:
        return _unheard_of(life, now, plan)
    limit = plan.start_timeout
    if limit is None or now.steady - life.started < limit:
        return life, ()
    return _stop(replace(life, reason=f"not ready within {limit:g} s"), After.RETRY, now, plan)


def _unheard_of(life: Life, now: Moment, plan: ModelPlan) -> Step:
    if now.steady - life.since < START_PATIENCE:
        return life, ()
    return _start_refused(life, e.StartRefused("circus did not start it"), now, plan)


def _tick_ready(life: Life, _event: e.Tick, now: Moment, plan: ModelPlan) -> Step:
    if now.steady - life.since < plan.restart.reset_after:
        return life, ()
    return replace(life, tries=0, restarts=0), ()


def _tick_unhealthy(life: Life, _event: e.Tick, now: Moment, plan: ModelPlan) -> Step:
    limit = plan.probe.restart_after
    if limit is None or life.pid is None or life.silent_since is None or now.steady - life.silent_since < limit:
        return life, ()
    # Whoever did not answer for so long does not act on SIGTERM either, and may hold a GPU.
    cause = f"did not answer for {limit:g} s: {life.reason}"
    hung = _enter(life, State.STOPPING, now, after=After.RETRY, due=now.steady + KILL_AGAIN, reason=cause)
    return hung, (e.Kill(life.pid),)


def _tick_draining(life: Life, _event: e.Tick, now: Moment, plan: ModelPlan) -> Step:
    return (life, ()) if life.due is None or now.steady < life.due else _stop(life, life.after, now, plan)


def _tick_stopping(life: Life, _event: e.Tick, now: Moment, plan: ModelPlan) -> Step:
    if life.pid is None:
        return _unheard_of(life, now, plan)
    if life.due is not None and now.steady < life.due:
        return life, ()
    return replace(life, due=now.steady + KILL_AGAIN), (e.Kill(life.pid),)


def _tick_backoff(life: Life, _event: e.Tick, now: Moment, _plan: ModelPlan) -> Step:
    return (life, ()) if life.due is None or now.steady < life.due else (_enter(life, State.QUEUED, now), ())


def _in(handler: Handler, *states: State) -> dict[State, Handler]:
    return dict.fromkeys(states, handler)


_S = State
_RUNNING = (_S.LOADING, _S.READY, _S.UNHEALTHY, _S.DRAINING, _S.STOPPING)
_WAITING = (_S.QUEUED, _S.BACKOFF, _S.FAILED)

TABLE: Mapping[type[Event], Mapping[State, Handler]] = MappingProxyType(
    {
        e.Spawned: _in(_spawned, *State),
        e.Exited: _in(_exited, *_RUNNING),
        e.Explained: _in(_explained, *_WAITING, _S.LOADING),
        e.Withdrawn: _in(_withdrawn, *_RUNNING),
        e.StartRefused: _in(_start_refused, _S.LOADING, _S.STOPPING),
        e.Cleaned: _in(_cleaned, *State),
        e.ProbeOk: _in(_probe_ok, _S.LOADING, _S.READY, _S.UNHEALTHY),
        e.ProbeFailed: _in(_probe_failed, _S.READY, _S.UNHEALTHY) | _in(_not_ready_yet, _S.LOADING),
        e.PhaseSeen: _in(_phase_seen, _S.LOADING),
        e.Drained: _in(_drained, _S.DRAINING),
        e.Admitted: _in(_admitted, _S.QUEUED),
        e.StartWished: _in(_queue, _S.STOPPED, _S.BACKOFF, _S.FAILED) | _in(_then_start, _S.DRAINING, _S.STOPPING),
        e.StopWished: {
            **_in(_rest, *_WAITING),
            **_in(_give_up_loading, _S.LOADING),
            **_in(_drain, _S.READY, _S.UNHEALTHY),
            **_in(_then_rest, _S.DRAINING, _S.STOPPING),
        },
        e.RestartWished: {
            **_in(_queue, _S.STOPPED, _S.BACKOFF, _S.FAILED),
            **_in(_give_up_loading, _S.LOADING),
            **_in(_drain, _S.READY, _S.UNHEALTHY),
            **_in(_then_start, _S.DRAINING, _S.STOPPING),
        },
        e.Resumed: _in(_resumed, _S.READY, _S.UNHEALTHY),
        e.Tick: {
            _S.LOADING: _tick_loading,
            _S.READY: _tick_ready,
            _S.UNHEALTHY: _tick_unhealthy,
            _S.DRAINING: _tick_draining,
            _S.STOPPING: _tick_stopping,
            _S.BACKOFF: _tick_backoff,
        },
    }
)
