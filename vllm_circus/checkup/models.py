"""Models that do not respond: the state of each, why, and a real question to its engine."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from functools import partial

from vllm_circus.bus.messages import ModelState
from vllm_circus.checkup.asking import Reply, Target, ask
from vllm_circus.checkup.findings import Found, fault, note, ok, warning
from vllm_circus.checkup.patience import all_within
from vllm_circus.checkup.scene import Scene
from vllm_circus.enginekeys import read_engine_key
from vllm_circus.lifecycle.states import State
from vllm_circus.plan.types import ModelPlan, Plan
from vllm_circus.view.units import counted, duration

_BROKEN = frozenset({State.FAILED, State.UNHEALTHY, State.BACKOFF})
#: Seconds that each step of a question takes at the most.
_LONGEST = 10.0
_AT_REST = frozenset({State.STOPPED, State.SLEEPING, State.DRAINING, State.STOPPING})


def check_models(scene: Scene) -> Iterator[Found]:
    """The state of each model of the running set, by the health plugin's last word."""
    if scene.running is None or scene.models is None:
        return
    told = {state.name: state for state in scene.models.models}
    yield from judge_models(scene, scene.running.models, told, time.time())


def judge_models(
    scene: Scene, models: tuple[ModelPlan, ...], told: Mapping[str, ModelState], now: float
) -> Iterator[Found]:
    """One finding for each that is not ready, one for all that are."""
    ready = []
    for model in models:
        state = told.get(model.name)
        if state is not None and state.state is State.READY:
            ready.append(model.name)
        else:
            yield judge_model(scene, model, state, now)
    if ready:
        names = ", ".join(ready[:5]) + (" …" if len(ready) > 5 else "")
        yield ok(f"{counted(len(ready), 'engine')} ready: {names}")


def judge_model(scene: Scene, model: ModelPlan, state: ModelState | None, now: float) -> Found:
    """Why one is not ready."""
    if state is None:
        return fault(f"{model.name}: the health plugin does not know it", f"{scene.words('reload')} tells it the plan")
    reason = "; ".join(part for part in (state.reason, state.phase) if part)
    since = f" since {duration(now - state.since_at)}" if state.since_at else ""
    what = f"{model.name} is {state.state}{since}" + (f": {reason}" if reason else "")
    if state.tries > 1:
        what += f"; failed {state.tries} times in a row"
    if state.state in _BROKEN:
        start = f", then {scene.words(f'start {model.name}')}" if state.state is State.FAILED else ""
        see = f"see {scene.words(f'why {model.name}')}{start}"
        return fault(what, f"{state.fix}; {see}" if state.fix else see)
    if state.state in _AT_REST:
        wake = scene.words(f"{'wake' if state.state is State.SLEEPING else 'start'} {model.name}")
        on_call = "; so does a request for it" if state.on_call else ""
        planned = not model.enabled or state.on_call or state.state is State.SLEEPING
        return ok(what) if planned else note(what, f"{wake} brings it back{on_call}")
    return note(what, f"{scene.words('status -w')} shows how it goes on")


def check_answers(scene: Scene) -> Iterator[Found]:
    """A real question to each engine that is said to be ready, by its own health path."""
    if scene.running is None:
        return
    asked = [model for model in scene.running.models if model.name in _expected(scene, scene.running)]
    answers = all_within(3 * _LONGEST, [partial(_question, scene, model) for model in asked])
    late = (Reply(error="no end of its answer"), None)
    replies = [(model, *(answer.value or late)) for model, answer in zip(asked, answers, strict=True)]
    broken = [found for model, health, listed in replies if (found := judge_answer(scene, model, health, listed))]
    yield from broken
    if asked and not broken:
        yield ok(f"{counted(len(asked), 'engine')} asked, and answered {asked[0].probe.path} and /v1/models")


def _expected(scene: Scene, plan: Plan) -> set[str]:
    """Which engines should answer: those said to be ready; where nobody says a word, those that start by themselves."""
    if scene.models is None:
        return {model.name for model in plan.models if model.enabled and not model.on_demand}
    return {state.name for state in scene.models.models if state.state is State.READY}


def _question(scene: Scene, model: ModelPlan) -> tuple[Reply, Reply | None]:
    """Its answers to its health path, and to /v1/models where its names are to be checked."""
    endpoint = model.endpoint
    target = Target(endpoint.host, endpoint.port, unix=endpoint.uds or "")
    within = min(model.probe.timeout, _LONGEST)
    health = ask(target, model.probe.path, timeout=within)
    if health.status != 200 or not model.check_names:
        return health, None
    try:
        key = read_engine_key(scene.instance.secrets / f"{model.name}.json") if model.keyed else None
    except (OSError, ValueError):
        return health, Reply(error="its key cannot be read")
    return health, ask(target, "/v1/models", key=key, timeout=within)


def judge_answer(scene: Scene, model: ModelPlan, health: Reply, listed: Reply | None) -> Found | None:
    """What is wrong with an engine's answers; None where nothing is."""
    see = f"see {scene.words(f'logs {model.name}')}; {scene.words(f'restart {model.name}')} starts it anew"
    if health.status != 200:
        said = health.error or f"answers {health.status}"
        what = f"{model.probe.path} of {model.name} at {model.endpoint}: {said}"
        if scene.models is None:
            return warning(f"{what}; nobody tells whether it should answer yet", see)
        return fault(f"{what}, though it is said to be ready", see)
    if listed is None:
        return None
    names = listed.names() if listed.status == 200 else None
    if names is None:
        said = listed.error or f"answers {listed.status}"
        return fault(f"{model.name} at {model.endpoint}, /v1/models: {said}", see)
    return None if names else fault(f"{model.name} at {model.endpoint} lists no model", see)
