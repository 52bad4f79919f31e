"""Models that answer for others while those cannot."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.plan.conftest import Planner
from vllm_circus.config.load import survey_config
from vllm_circus.errors import ConfigError
from vllm_circus.paths import Instance
from vllm_circus.plan.decide import make_plan
from vllm_circus.plan.types import ModelPlan, Plan


def models(*lines: str) -> str:
    """Models a, b, c … each with further keys, on lines of their own from 2."""
    head = "proxy: {host: 127.0.0.1}\nmodels:\n"
    return head + "".join(f"- {{name: {chr(97 + n)}, model: org/x, {line}}}\n" for n, line in enumerate(lines))


def named(plan: Plan, name: str) -> ModelPlan:
    model = plan.model(name)
    assert model is not None
    return model


def served(model: ModelPlan) -> tuple[str, ...]:
    """The names on the engine's command line."""
    rest = model.argv[model.argv.index("--served-model-name") + 1 :]
    return rest[: next((at for at, word in enumerate(rest) if word.startswith("--")), len(rest))]


@pytest.mark.parametrize("engine", ["vllm", "simulator"])
def test_a_fallback_serves_the_others_names_behind_its_own(planner: Planner, engine: str) -> None:
    text = models(
        "fallback: b, aliases: [z], lora: [{name: poet, path: org/y}]", f"aliases: [q], engine: {engine}", "fallback: b"
    )
    plan = planner.plan(text)
    assert served(named(plan, "b")) == ("b", "q", "a", "z", "c")
    assert named(plan, "b").names == ("b", "q")
    assert named(plan, "a").fallback == "b"
    assert served(named(plan, "a")) == ("a", "z")


def test_every_replica_of_a_fallback_serves_the_others_names_once(planner: Planner) -> None:
    plan = planner.plan(models("replicas: 2, fallback: b", "replicas: 2"))
    assert [served(model) for model in plan.models] == [("a",), ("a",), ("b", "a"), ("b", "a")]


def test_two_may_stand_in_for_each_other_and_none_for_the_others_others(planner: Planner) -> None:
    plan = planner.plan(models("fallback: b", "fallback: c", "fallback: b"))
    assert [served(model) for model in plan.models] == [("a",), ("b", "a", "c"), ("c", "b")]


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ("a", "a model cannot stand in for itself (name another model, or write `replicas: 2`)"),
        ("bb", "no model is called 'bb' (did you mean 'b'?)"),
        ("zebra", "no model is called 'zebra' (models are a, b)"),
        ("bee", "no model is called 'bee' (that is another name of 'b' (models[1], line 4): write the model's own)"),
        ("poet", "no model is called 'poet' (that is another name of 'b' (models[1], line 4): write the model's own)"),
    ],
)
def test_a_fallback_that_is_none_is_refused(planner: Planner, wanted: str, words: str) -> None:
    text = models(f"fallback: {wanted}", "aliases: [bee], lora: [{name: poet, path: org/y}]")
    assert planner.faults(text) == [f"3: models[0].fallback: {words}"]


def test_a_fallback_whose_name_has_a_fault_itself_is_not_told_as_well(planner: Planner, tmp_path: Path) -> None:
    text = "models:\n- {name: a, model: org/x, fallback: b}\n- {name: B, model: org/x}\n"
    assert surveyed(planner, tmp_path, text) == ["models[1].name"]


@pytest.mark.parametrize(
    ("faulty", "other", "told"),
    [
        ("replicas: x", "profile: hi_throughput", ["replicas", "profile"]),
        ("replicas: x", "fallback: zebra", ["replicas", "fallback"]),
        ("priority: x", "args: {dtype: float17}", ["priority", "args.dtype"]),
        ("priority: x", "env: {HF_TOKEN: hf_x}", ["priority", "env.HF_TOKEN"]),
        ("priority: x", "env_file: ./none", ["priority", "env_file"]),
        ("replicas: x", "args: {tensor-parallel-size: 4}, gpus: [0, 1]", ["replicas"]),
        ("gpus: x", "args: {tensor-parallel-size: 4}", ["gpus"]),
        ("profile: [x]", "args: {pipeline-parallel-size: 4}, gpus: [0]", ["profile"]),
        ("aliases: x", "fallback: zebra", ["aliases"]),
    ],
)
def test_what_cannot_come_of_a_models_other_faults_is_told_with_them(
    planner: Planner, tmp_path: Path, faulty: str, other: str, told: list[str]
) -> None:
    text = f"models:\n- name: a\n  model: org/x\n  {faulty}\n  " + other.replace(", gpus", "\n  gpus") + "\n"
    assert surveyed(planner, tmp_path, text) == [f"models[0].{place}" for place in told]


def surveyed(planner: Planner, folder: Path, text: str) -> list[str]:
    """Where a file has faults of any kind, in its order."""
    path = folder / "models.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        make_plan(survey_config(path), Instance("default", *[folder] * 4), planner.facts, planner.disk)
    return [fault.where for fault in caught.value.faults]


def test_a_command_of_ones_own_as_fallback_is_told_what_it_has_to_answer(planner: Planner) -> None:
    planner.disk.programs["srv"] = "/bin/srv"
    plan = planner.plan(models("fallback: b, aliases: [z]", "engine: {command: [srv, '{port}']}"))
    assert plan.warnings == (
        "models[0].fallback: 'b' is a command of your own: it has to answer requests for 'a', 'z' as well",
    )


def test_a_fallback_that_is_not_started_is_told(planner: Planner) -> None:
    (warning,) = planner.plan(models("fallback: b", "enabled: false")).warnings
    assert warning == "models[0].fallback: 'b' is not started with the set, so that nobody stands in by itself"


def test_who_gets_another_name_to_serve_is_not_restarted_for_it(planner: Planner) -> None:
    before, after = planner.plan(models("", "", "")), planner.plan(models("fallback: b", "", ""))
    assert [model.digest for model in after.models] == [model.digest for model in before.models]
    assert after.models[1].serves != before.models[1].serves
