"""The whole plan: every fault at once, inheritance, digests, the samples."""

from __future__ import annotations

from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest

from tests.plan.conftest import FACTS, RUN, FakeDisk, Planner
from vllm_circus.config.load import load_config
from vllm_circus.config.profiles import Library
from vllm_circus.errors import ConfigError
from vllm_circus.facts import gather_facts
from vllm_circus.paths import Instance
from vllm_circus.plan.decide import make_plan
from vllm_circus.plan.types import PLAN_VERSION, dump_plan, load_plan

INSTANCE = Instance("default", Path("/etc/vc"), RUN, RUN, RUN)

EVERYTHING_WRONG = """\
proxy:
  port: 8001
  default_model: nope
defaults:
  env: {HF_TOKEN: x}
models:
- name: a
  model: ./nope
  port: 8001
  gpus: [0]
- name: a
  model: org/x
  gpus: [0, 99]
  profile: nope
  args: {host: 0.0.0.0}
- name: all
  model: org/x
  aliases: [a]
"""


def test_every_fault_between_values_is_told_at_once_in_file_order(planner: Planner) -> None:
    found = [fault.partition(" (")[0] for fault in planner.faults(EVERYTHING_WRONG)]
    assert found == [
        "3: proxy.default_model: no model is called 'nope'",
        "5: defaults.env.HF_TOKEN: looks like a secret, and this file is no place for one",
        "8: models[0].model: there is no /etc/vc/nope",
        "9: models[0].port: port 8001 is the proxy's own",
        "11: models[1].name: 'a' is also models[0].name",
        "13: models[1].gpus[0]: GPU 0 already belongs to 'a'",
        "13: models[1].gpus[1]: there is no GPU 99",
        "14: models[1].profile: there is no profile 'nope'",
        "15: models[1].args.host: the program sets this itself",
        "16: models[2].name: 'all' is a name that commands and logs use",
        "18: models[2].aliases[0]: 'a' is also models[0].name",
    ]


def test_what_a_model_does_not_set_comes_from_the_defaults(planner: Planner) -> None:
    first, second = planner.plan("""\
defaults: {priority: 5, drain_timeout: 1, restart: {max_tries: 3, factor: 4}, engine: simulator, profile: standard}
models:
- {name: a, model: x}
- {name: b, model: org/x, priority: 0, restart: {factor: 1}, probe: {interval: 9}, engine: vllm, profile: null}
""").models
    assert (first.priority, first.drain_timeout, first.engine, first.profile) == (5, 1, "simulator", "standard")
    assert (second.priority, second.drain_timeout, second.engine, second.profile) == (0, 1, "vllm", None)
    assert (second.restart.max_tries, second.restart.factor, second.restart.first_delay) == (3, 1, 10)
    assert second.probe.interval == 9


def test_a_fault_of_an_inherited_value_is_told_where_it_is_written(planner: Planner) -> None:
    text = "defaults:\n  profile: nope\nmodels:\n- {name: a, model: org/x}\n- {name: b, model: org/x}\n"
    (fault,) = planner.faults(text)
    assert fault.startswith("2: defaults.profile: there is no profile 'nope'")


BASE = "models:\n- {name: a, model: org/x, %s}\n"


@pytest.mark.parametrize(
    ("change", "restart"),
    [
        ("args: {max-model-len: 1}", True),
        ("env: {A: b}", True),
        ("port: 9000", True),
        ("gpus: [0]", True),
        ("threads: 2", True),
        ("aliases: [b]", False),
        ("sleep: true", True),
        ("gpu_memory: 0.4", True),
        ("on_demand: true", False),
        ("idle: {after: 9, then: stop}", False),
        ("max_in_flight: 9", False),
        ("engine: simulator", True),
        ("env_file: good.env", True),
        ("lora: [{name: l, path: org/l}]", True),
        ("priority: 9", False),
        ("drain_timeout: 9", False),
        ("restart: {policy: never}", False),
        ("probe: {interval: 9}", False),
        ("enabled: false", False),
    ],
)
def test_the_digest_changes_when_the_engine_has_to_be_restarted(change: str, restart: bool) -> None:
    planner = Planner(disk=FakeDisk(files={"/etc/vc/good.env": 0o600}))
    assert (planner.model(BASE % "").digest != planner.model(BASE % change).digest) is restart


def test_the_digest_of_one_model_stays_when_another_comes(planner: Planner) -> None:
    alone = planner.model(BASE % "port: 9000")
    among, _ = planner.plan(BASE % "port: 9000" + "- {name: b, model: org/y}\n").models
    assert alone.digest == among.digest
    assert dict(alone.env)["OMP_NUM_THREADS"] != dict(among.env)["OMP_NUM_THREADS"]


def test_a_plan_is_read_back_as_it_was_written(planner: Planner) -> None:
    plan = planner.plan(BASE % "gpus: [0, 1], aliases: [b], args: {x: {y: 1}}")
    assert load_plan(dump_plan(plan)) == plan
    with pytest.raises(ValueError, match="version"):
        load_plan(dump_plan(replace(plan, version=PLAN_VERSION + 1)))


@pytest.mark.parametrize(
    ("name", "models"),
    [
        ("demo", ["alpha", "beta"]),
        ("two-gpus", ["chat", "embed"]),
        ("replicas", ["chat-1", "chat-2", "small"]),
        ("example", ["chat"]),
    ],
)
def test_the_samples_can_be_planned(name: str, models: list[str]) -> None:
    source = Path(str(files("vllm_circus.conf").joinpath(f"{name}.yaml")))
    plan = make_plan(load_config(source), INSTANCE, FACTS, FakeDisk())
    assert [model.name for model in plan.models] == models
    assert plan.source == str(source)


def test_the_demo_can_be_planned_on_this_very_machine() -> None:
    source = Path(str(files("vllm_circus.conf").joinpath("demo.yaml")))
    plan = make_plan(load_config(source), INSTANCE, gather_facts(own_ports=frozenset(range(8000, 8100))))
    assert [model.names for model in plan.models] == [("alpha", "alpha-latest"), ("beta", "beta-latest")]
    assert plan.warnings == ()


def test_stored_profiles_that_nobody_may_read_are_told_of(tmp_path: Path) -> None:
    source = tmp_path / "m.yaml"
    source.write_text("defaults: {engine: simulator}\nmodels: [{name: a, model: b/c, profile: standard}]\n")
    barred = replace(load_config(source), library=Library(barred="they cannot be read"))
    warnings = make_plan(barred, INSTANCE, FACTS, FakeDisk()).warnings
    assert "they cannot be read; the built-in profile 'standard' is taken" in warnings
    source.write_text("defaults: {engine: simulator}\nmodels: [{name: a, model: b/c, profile: mine}]\n")
    barred = replace(load_config(source), library=Library(barred="they cannot be read"))
    with pytest.raises(ConfigError, match=r"there is no profile 'mine' \(they cannot be read\)"):
        make_plan(barred, INSTANCE, FACTS, FakeDisk())
