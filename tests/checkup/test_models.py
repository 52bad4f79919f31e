"""Models that do not respond: their state, why, and what their engines really answer."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.checkup.conftest import MakePlan
from tests.checkup.test_reach import LIST, answer, served
from vllm_circus.bus.messages import ModelsMessage, ModelState
from vllm_circus.checkup.asking import Reply
from vllm_circus.checkup.findings import Verdict
from vllm_circus.checkup.models import check_answers, check_models, judge_answer, judge_model
from vllm_circus.checkup.scene import Scene
from vllm_circus.lifecycle.states import State

NOW = 1_000_000.0


def running(scene: Scene, plan_of: MakePlan, port: int, *states: ModelState, more: str = "") -> Scene:
    """A set of one model whose engine has this port."""
    plan = plan_of(f"models: [{{name: a, model: org/a, port: {port}{more}}}]")
    told = ModelsMessage(NOW, 11, 1, states) if states else None
    return replace(scene, daemon=1, running=plan, models=told, heard_at=NOW)


READY = ModelState("a", State.READY, since_at=NOW - 60)


def test_models_that_are_ready_are_named(scene: Scene, plan_of: MakePlan) -> None:
    (found,) = check_models(running(scene, plan_of, 8001, READY))
    assert (found.verdict, found.what) == (Verdict.OK, "1 engine ready: a")


@pytest.mark.parametrize(
    ("state", "verdict", "what", "fix"),
    [
        (
            ModelState("a", State.FAILED, "ran out of memory", NOW - 60, fix="use fewer", tries=8),
            Verdict.FAULT,
            "a is failed since 1m00s: ran out of memory; failed 8 times in a row",
            "use fewer; see `vllm-circus why a`, then `vllm-circus start a`",
        ),
        (
            ModelState("a", State.UNHEALTHY, "no answer within 5 s", NOW - 7),
            Verdict.FAULT,
            "a is unhealthy since 7s: no answer within 5 s",
            "see `vllm-circus why a`",
        ),
        (
            ModelState("a", State.LOADING, since_at=NOW - 5, phase="loading weights"),
            Verdict.NOTE,
            "a is loading since 5s: loading weights",
            "`vllm-circus status -w`",
        ),
        (ModelState("a", State.STOPPED, "by hand"), Verdict.NOTE, "a is stopped: by hand", "`vllm-circus start a`"),
        (ModelState("a", State.SLEEPING, on_call=True), Verdict.OK, "a is sleeping", ""),
        (None, Verdict.FAULT, "a: the health plugin does not know it", "`vllm-circus reload`"),
    ],
)
def test_a_model_that_is_not_ready_says_why(
    state: ModelState | None, verdict: Verdict, what: str, fix: str, scene: Scene, plan_of: MakePlan
) -> None:
    (model,) = plan_of("models: [{name: a, model: org/a}]").models
    found = judge_model(scene, model, state, NOW)
    assert (found.verdict, found.what) == (verdict, what)
    assert fix in found.fix


def test_a_disabled_model_that_rests_is_well(scene: Scene, plan_of: MakePlan) -> None:
    (model,) = plan_of("models: [{name: a, model: org/a, enabled: false}]").models
    assert judge_model(scene, model, ModelState("a", State.STOPPED), NOW).verdict is Verdict.OK


def test_an_engine_that_answers_is_well(scene: Scene, plan_of: MakePlan) -> None:
    scene.instance.secrets.mkdir(parents=True)
    (scene.instance.secrets / "a.json").write_text(json.dumps({"VLLM_API_KEY": "k"}))
    with served(answer(LIST)) as port:
        (found,) = check_answers(running(scene, plan_of, port, READY))
    assert found.verdict is Verdict.OK


def test_an_engine_that_is_said_to_be_ready_and_hangs_is_a_fault(scene: Scene, plan_of: MakePlan) -> None:
    with served(None) as port:
        (found,) = check_answers(running(scene, plan_of, port, READY, more=", probe: {timeout: 0.2}"))
    assert found.verdict is Verdict.FAULT
    assert found.what == f"/health of a at 127.0.0.1:{port}: no answer within 0.2 s, though it is said to be ready"
    assert "`vllm-circus restart a`" in found.fix


def test_engines_are_asked_where_the_health_plugin_is_silent(
    scene: Scene, plan_of: MakePlan, free_port: Callable[[], int]
) -> None:
    (found,) = check_answers(running(scene, plan_of, free_port()))
    assert found.verdict is Verdict.WARNING
    assert "connection refused; nobody tells whether it should answer yet" in found.what


def test_many_engines_that_hang_are_asked_at_a_time(scene: Scene, plan_of: MakePlan) -> None:
    with served(None) as port:
        scene = running(scene, plan_of, port, more=", probe: {timeout: 0.5}")
        assert scene.running is not None
        many = replace(scene.running, models=scene.running.models * 20)
        began = time.monotonic()
        found = list(check_answers(replace(scene, running=many)))
    assert len(found) == 20
    assert time.monotonic() - began < 20 * 0.5


def test_only_models_that_should_answer_are_asked(scene: Scene, plan_of: MakePlan) -> None:
    assert not list(check_answers(running(scene, plan_of, 8001, ModelState("a", State.STOPPED))))


@pytest.mark.parametrize(
    ("health", "listed", "what"),
    [
        (Reply(500), None, "answers 500"),
        (Reply(200), Reply(401), "/v1/models: answers 401"),
        (Reply(200), Reply(error="its key cannot be read"), "its key cannot be read"),
        (Reply(200), Reply(200, b'{"data": []}'), "lists no model"),
    ],
)
def test_each_wrong_answer_is_told(
    health: Reply, listed: Reply | None, what: str, scene: Scene, plan_of: MakePlan
) -> None:
    scene = running(scene, plan_of, 8001, READY)
    assert scene.running is not None
    found = judge_answer(scene, scene.running.models[0], health, listed)
    assert found is not None
    assert what in found.what


def test_an_engine_without_a_fault_has_none(scene: Scene, plan_of: MakePlan) -> None:
    (model,) = plan_of("models: [{name: a, model: org/a}]").models
    assert judge_answer(scene, model, Reply(200), Reply(200, LIST)) is None
    assert judge_answer(scene, model, Reply(200), None) is None
