"""What becomes of a model by what its engine, its log and the proxy workers tell. Rules and theory: `machine`."""

from __future__ import annotations

from dataclasses import replace

from vllm_circus.config.models import Probe
from vllm_circus.lifecycle import events as e
from vllm_circus.lifecycle.events import Moment
from vllm_circus.lifecycle.life import Diagnosis, Ending, Life
from vllm_circus.lifecycle.states import State
from vllm_circus.lifecycle.steps import SLEEP_PATIENCE, Step, back_to_ready, enter, kill, wake_limit
from vllm_circus.plan.types import ModelPlan

#: How many intervals of probes an answer to a client speaks for the engine, and seconds at least: the workers tell
#: once a second.
_ANSWERS_COUNT = 3
_LEAST = 3.0


def probe_ok(life: Life, event: e.ProbeOk, now: Moment, _plan: ModelPlan) -> Step:
    """It answers. A sleeping engine does too, so while it wakes up only what was asked after `Woken` counts."""
    if life.pid is None or event.asked < life.started:  # somebody else answered
        return life, ()
    well = replace(life, failures=0, silent_since=None, answered=event.asked)
    if life.state in {State.READY, State.DRAINING}:
        return well, ()
    if life.state is State.WAKING and (life.woken is None or event.asked < life.woken):
        return life, ()
    return enter(well, State.READY, now, reason="", fix="", quiet=None), ()


def probe_failed(life: Life, event: e.ProbeFailed, now: Moment, plan: ModelPlan) -> Step:
    """Several in a row take it out of the routes, unless clients get answers."""
    if event.asked < max(life.started, life.answered):  # overtaken by a later probe that went well
        return life, ()
    since = event.asked if life.silent_since is None else life.silent_since
    ill = replace(life, failures=life.failures + 1, silent_since=since)
    if life.state is State.DRAINING:
        return ill, ()
    if life.state is State.UNHEALTHY:
        return replace(ill, reason=event.cause), ()
    if ill.failures >= plan.probe.failures and not _answers(life, now, plan.probe):
        return enter(ill, State.UNHEALTHY, now, reason=event.cause, fix=""), ()
    return ill, ()


def _answers(life: Life, now: Moment, probe: Probe) -> bool:
    return life.heard is not None and now.steady - life.heard <= max(_LEAST, _ANSWERS_COUNT * probe.interval)


def silence(life: Life, now: Moment) -> float:
    """Seconds since the last sign of life, by probes or by answers to clients; 0 while the last probe went well."""
    if life.silent_since is None:
        return 0.0
    return now.steady - max(life.silent_since, life.heard or 0.0)


def not_ready_yet(life: Life, event: e.ProbeFailed, _now: Moment, _plan: ModelPlan) -> Step:
    """Silence is normal while it loads; an answer that is wrong is worth telling."""
    told = event.answered and life.pid is not None and event.asked >= life.started
    return (replace(life, reason=event.cause) if told else life), ()


def counted(life: Life, event: e.Counted, now: Moment, plan: ModelPlan) -> Step:
    """Requests that run while no step is made: after long enough it hangs."""
    if life.pid is None or life.dozing or event.asked < life.started or _is_to_end(life):
        return life, ()
    if event.running <= 0 or event.iterations != life.iterations:
        return replace(life, iterations=event.iterations, frozen=None), ()
    frozen = event.asked if life.frozen is None else life.frozen
    limit = plan.probe.hang_after
    if limit is None or event.asked - frozen < limit:
        return replace(life, frozen=frozen), ()
    cause = f"it hung: {event.running:g} requests ran and the engine made no step for {event.asked - frozen:.0f} s"
    fix = "look at its log; where steps may take that long, raise `probe.hang_after`"
    return kill(life, Diagnosis(cause, fix, "hung"), now)


def halted(life: Life, event: e.Halted, now: Moment, plan: ModelPlan) -> Step:
    """It cannot go on, whatever its other processes answer."""
    if _is_to_end(life) or event.leader != life.pid or plan.probe.restart_after is None:
        return life, ()
    cause = f"its process {event.pid} was stopped (SIGSTOP) and did not go on"
    fix = "leave engines running: to look at one, attach a debugger; `probe.restart_after: null` lets it wait"
    return kill(life, Diagnosis(cause, fix, "stopped"), now)


def _is_to_end(life: Life) -> bool:
    """Whether it drains for an operator: what he wished for comes when that is due, however ill it is."""
    return life.state is State.DRAINING and life.due is not None


def answering(life: Life, _event: e.Answering, now: Moment, _plan: ModelPlan) -> Step:
    """Clients get answers, so it is not silent. Whether it makes steps is another matter: some need none."""
    return replace(life, heard=now.steady), ()


def asked(life: Life, _event: e.Asked, now: Moment, _plan: ModelPlan) -> Step:
    """Requests for it: it is not idle, and where it drained only for that it goes on."""
    busy = replace(life, quiet=None)
    if life.state is State.DRAINING and life.ending is Ending.IDLE and not life.dozing:
        return back_to_ready(busy, now), ()
    return busy, ()


def quiet(life: Life, _event: e.Quiet, now: Moment, _plan: ModelPlan) -> Step:
    """No request, since now or since earlier."""
    return (replace(life, quiet=now.steady) if life.quiet is None else life), ()


def unheard(life: Life, _event: e.Unheard, _now: Moment, _plan: ModelPlan) -> Step:
    """Nobody knows: it is not idle for all we know."""
    return replace(life, quiet=None), ()


def phase_seen(life: Life, event: e.PhaseSeen, _now: Moment, _plan: ModelPlan) -> Step:
    """What loading is at."""
    return replace(life, phase=event.phase), ()


def resumed(life: Life, _event: e.Resumed, now: Moment, plan: ModelPlan) -> Step:
    """What nobody watched does not count: neither silence nor quiet, nor the time to fall asleep or to wake up."""
    silent = now.steady if life.state is State.UNHEALTHY else None
    life = replace(life, failures=0, silent_since=silent, quiet=None, frozen=None)
    if life.state is State.WAKING:
        return replace(life, due=now.steady + wake_limit(life, plan)), ()
    return (replace(life, due=now.steady + SLEEP_PATIENCE) if life.dozing else life), ()
