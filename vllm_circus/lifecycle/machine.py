"""The life of one model as a state machine: pure, and driven by a table.

States (`states.State`), and whether there is a process in them:

    stopped   no    it does not run: nobody wants it to, or it is on call
    queued    no    it is to run and waits for its turn (`scheduler`)
    loading   soon  circus was asked for a process, or has one that is not ready yet
    ready     yes   it answers, and gets requests
    unhealthy yes   it was ready and does not answer any more
    draining  yes   it is to end or to sleep: no new requests, those in flight go on
    stopping  yes   it was told to end (SIGTERM, later SIGKILL)
    backoff   no    it died; the wait before the next start
    failed    no    it died too often; only an operator starts it again
    sleeping  yes   its memory is given back; it is on call, and where it is `wished` it waits for its turn to wake up
    waking    yes   it was told to wake up and does not answer a probe yet

`advance` takes a life, an event and the time, and gives the life after it and what is to be done. Rules:

1. An event that means nothing in a state changes nothing there: late and doubled events are harmless.
2. After `Start` there is no other `Start` before that process ended, or before it is clear that none came.
3. A process that is gone leaves its pid in `remains` until `Cleaned` says that nothing of its session is left. The
   scheduler admits nobody with remains, so no engine starts beside the leftovers of its predecessor.
4. Our own stops go by signals and never make circus publish `kill`. So a `kill` is always somebody else's wish
   (`Withdrawn`), and is respected: the model rests until somebody starts it.
5. An end that nobody asked for is a crash, exit code 0 included. So is one that we brought about since the engine
   was silent, hung or did not do as told (`After.RETRY`, with our `verdict`).
6. `tries` counts starts in a row that failed: the process ended before it had been ready for `reset_after`.
   `restarts` counts restarts in a row, which the waits grow with. Operators' wishes forgive both, requests neither.
7. A loading model is never ended for being slow, unless `start_timeout` says so.
8. Only the steady clock decides. Everything in a `Life` survives a restart of whoever keeps it (`resume`).
9. Sleep is asked of an engine only when nothing is in flight (`dozing` from then on). An operator's sleep that does
   not come to that in time is given up. Whether an engine that did not answer sleeps is unknown: it gets a new process.
10. On call is what a request brings back (`Wanted`): asleep, or at rest since it is `on_demand`, was idle or gave way
    to another. An operator's stop ends that, and only an operator starts it then. What dies while it is on call and
    nobody waits for it stays down, with the crash told.
11. Both a start and waking up are the scheduler's to admit, since both need the GPUs for themselves.
12. Draining for idleness is undone by a request, as long as the engine was not told anything. Draining for another's
    turn is not, cuts no request however long it runs, and brings the model back later where a request waits for it.
13. Answers to clients are signs of life as good as probes: they keep a model in the routes. It hangs when neither
    came for `restart_after`, when requests run and no step is counted for `hang_after`, or as soon as a process of
    its session is found stopped.
14. `wished` says that requests may wait for it: from an operator's or a request's wish until it is ready or crashes.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from vllm_circus.lifecycle import events as e
from vllm_circus.lifecycle import on_health, on_process, on_sleep, on_time, on_wish
from vllm_circus.lifecycle.events import Action, Event, Moment
from vllm_circus.lifecycle.life import Diagnosis, Life
from vllm_circus.lifecycle.states import State
from vllm_circus.lifecycle.steps import Handler, Step, enter, in_states, settled
from vllm_circus.plan.types import ModelPlan


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
        life, more = advance(life, e.Exited(life.pid, Diagnosis("it ended while nobody watched")), now, plan)
        actions += more
    if pid is not None:
        life, more = advance(life, e.Spawned(pid), now, plan)
        actions += more or _asked_again(life)
    elif life.state is State.LOADING:
        life = enter(life, State.QUEUED, now)
    elif life.state is State.STOPPING:
        life = settled(life, now, plan)
    return advance(life, e.Resumed(), now, plan)[0], actions


def _asked_again(life: Life) -> tuple[Action, ...]:
    """What may have been asked of the process and never got there. Each of these may come twice."""
    if life.pid is None:
        return ()
    if life.state is State.STOPPING:
        return (e.Terminate(life.pid),)
    if life.dozing:
        return (e.Sleep(life.pid, life.level),)
    if life.state is State.WAKING and life.woken is None:
        return (e.Wake(life.pid, life.level),)
    return ()


_S = State
_SERVING = (_S.READY, _S.UNHEALTHY)
_ASLEEP = (_S.SLEEPING, _S.WAKING)
_PROCESS = (_S.LOADING, *_SERVING, _S.DRAINING, _S.STOPPING, *_ASLEEP)
_WAITING = (_S.QUEUED, _S.BACKOFF, _S.FAILED)
_DOWN = (_S.STOPPED, _S.BACKOFF, _S.FAILED)
_ANSWERING = (*_SERVING, _S.DRAINING)

TABLE: Mapping[type[Event], Mapping[State, Handler]] = MappingProxyType(
    {
        e.Spawned: in_states(on_process.spawned, *State),
        e.Exited: in_states(on_process.exited, *_PROCESS),
        e.Explained: in_states(on_process.explained, *_WAITING, _S.STOPPED, _S.LOADING),
        e.Withdrawn: in_states(on_process.withdrawn, *_PROCESS),
        e.StartRefused: in_states(on_process.start_refused, _S.LOADING, _S.STOPPING),
        e.Cleaned: in_states(on_process.cleaned, *State),
        e.ProbeOk: in_states(on_health.probe_ok, _S.LOADING, _S.WAKING, *_ANSWERING),
        e.ProbeFailed: {
            **in_states(on_health.probe_failed, *_ANSWERING),
            **in_states(on_health.not_ready_yet, _S.LOADING),
        },
        e.Counted: in_states(on_health.counted, *_ANSWERING),
        e.Halted: in_states(on_health.halted, _S.LOADING, *_ANSWERING, *_ASLEEP),
        e.Answering: in_states(on_health.answering, *_ANSWERING),
        e.Asked: in_states(on_health.asked, *_ANSWERING),
        e.Quiet: in_states(on_health.quiet, *_ANSWERING),
        e.Unheard: in_states(on_health.unheard, *_ANSWERING),
        e.PhaseSeen: in_states(on_health.phase_seen, _S.LOADING),
        e.Resumed: in_states(on_health.resumed, _S.WAKING, *_ANSWERING),
        e.Drained: in_states(on_sleep.drained, _S.DRAINING),
        e.Slept: in_states(on_sleep.slept, _S.DRAINING),
        e.FoundAsleep: in_states(on_sleep.found_asleep, _S.LOADING, *_SERVING),
        e.SleepRefused: in_states(on_sleep.sleep_refused, _S.DRAINING),
        e.Woken: in_states(on_sleep.woken, _S.WAKING),
        e.WakeRefused: in_states(on_sleep.wake_refused, _S.WAKING),
        e.Admitted: {_S.QUEUED: on_wish.admitted, _S.SLEEPING: on_wish.admitted_asleep},
        e.TurnOver: {**in_states(on_wish.turn_over, *_SERVING), _S.QUEUED: on_wish.leave_the_line},
        e.Wanted: in_states(on_wish.wanted, _S.STOPPED, _S.SLEEPING, _S.DRAINING, _S.STOPPING),
        e.StartWished: {
            **in_states(on_wish.queue, *_DOWN),
            _S.DRAINING: on_wish.start_draining,
            _S.STOPPING: on_wish.then_start,
            _S.SLEEPING: on_wish.wake,
        },
        e.StopWished: {
            _S.STOPPED: on_wish.off_call,
            **in_states(on_wish.rest, *_WAITING),
            **in_states(on_wish.end_idle, _S.LOADING, *_ASLEEP),
            **in_states(on_wish.end_serving, *_SERVING),
            _S.DRAINING: on_wish.stop_draining,
            _S.STOPPING: on_wish.then_rest,
        },
        e.RestartWished: {
            **in_states(on_wish.queue, *_DOWN),
            _S.QUEUED: on_wish.stay_queued,
            **in_states(on_wish.end_idle, _S.LOADING, *_ASLEEP),
            **in_states(on_wish.end_serving, *_SERVING),
            _S.DRAINING: on_wish.restart_draining,
            _S.STOPPING: on_wish.then_start,
        },
        e.SleepWished: {
            **in_states(on_sleep.sleep_wished, _S.READY, _S.DRAINING),
            _S.SLEEPING: on_sleep.sleep_on,
        },
        e.WakeWished: {_S.SLEEPING: on_wish.wake, _S.DRAINING: on_wish.start_draining},
        e.Tick: {
            _S.LOADING: on_time.tick_loading,
            _S.READY: on_time.tick_ready,
            _S.UNHEALTHY: on_time.tick_unhealthy,
            _S.DRAINING: on_time.tick_draining,
            _S.STOPPING: on_time.tick_stopping,
            _S.BACKOFF: on_time.tick_backoff,
            _S.WAKING: on_sleep.tick_waking,
        },
    }
)
