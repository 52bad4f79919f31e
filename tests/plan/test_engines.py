"""Argument vectors of the three kinds of engine."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.plan.conftest import FakeDisk, Planner

COMMAND = """\
models:
- name: a
  model: ./m.gguf
  gpus: [2, 3]
  engine:
    command: [srv, --model, "{model}", "{name}:{port}@{host}", "--gpus={gpus}", "{other}", '{"json": 1}']
"""


def test_vllm_gets_its_address_its_names_its_adapters_and_its_options(planner: Planner) -> None:
    model = planner.model(
        "models: [{name: a, model: org/x, port: 9001, aliases: [b, c], "
        "args: {max-model-len: 512, enforce-eager: true}, lora: [{name: d, path: org/y}]}]"
    )
    assert " ".join(model.argv) == (
        "/opt/vllm/bin/vllm serve org/x --host 127.0.0.1 --port 9001 --served-model-name a b c "
        "--enable-lora --lora-modules d=org/y --max-model-len 512 --enforce-eager"
    )
    assert (model.engine, model.keyed, model.check_names) == ("vllm", True, True)


def test_the_simulator_takes_the_same_flags(planner: Planner) -> None:
    model = planner.model("models: [{name: a, model: org/x, engine: simulator, args: {load-seconds: 3}}]")
    assert " ".join(model.argv) == (
        "/usr/bin/python3 -m vllm_circus.simulator serve org/x --host 127.0.0.1 --port 8001 "
        "--served-model-name a --load-seconds 3"
    )
    assert (model.engine, model.keyed, model.check_names) == ("simulator", True, True)


def test_the_simulator_needs_no_vllm(planner: Planner) -> None:
    assert planner.given(programs={}).model("models: [{name: a, model: x, engine: simulator}]").argv[0].startswith("/")


def test_a_command_of_ones_own_is_filled_in(planner: Planner) -> None:
    disk = FakeDisk(files={"/etc/vc/m.gguf": 0o644}, programs={"srv": "/usr/bin/srv"})
    model = replace(planner, disk=disk).model(COMMAND)
    assert model.argv == (
        *("/usr/bin/srv", "--model", "/etc/vc/m.gguf", "a:8001@127.0.0.1", "--gpus=2,3", "{other}", '{"json": 1}'),
    )
    assert (model.engine, model.keyed, model.check_names) == ("command", False, False)
    assert "VLLM_PORT" not in dict(model.env)
    assert dict(model.env)["CUDA_VISIBLE_DEVICES"] == "2,3"


def test_a_value_that_looks_like_a_placeholder_is_not_filled_in_twice(planner: Planner) -> None:
    disk = FakeDisk(programs={"srv": "/usr/bin/srv"})
    text = "models: [{name: a, model: 'x{port}', engine: {command: [srv, '{model}', '{port}']}}]"
    assert replace(planner, disk=disk).model(text).argv == ("/usr/bin/srv", "x{port}", "8001")


@pytest.mark.parametrize(
    ("rest", "words"),
    [
        ("engine: {command: [nope, '{port}']}", "engine.command[0]: there is no executable 'nope'"),
        ("engine: {command: [srv]}", "engine.command: the command never says {port}"),
        ("engine: {command: [srv, '{port}']}, args: {x: 1}", "args: is not passed to a command of your own"),
        ("engine: {command: [srv, '{port}']}, lora: [{name: l, path: org/l}]", "lora: is not passed to a command"),
        ("engine: {command: [srv, '{port}']}, executable: srv", "executable: is not passed to a command"),
        (
            "lora: [{name: l, path: org/l}], args: {enable-lora: false}",
            "args.enable-lora: turns the model's `lora` off",
        ),
        ("profile: standrad", "profile: there is no profile 'standrad' (did you mean 'standard'?)"),
    ],
)
def test_what_does_not_go_together_is_refused(planner: Planner, rest: str, words: str) -> None:
    machine = replace(planner, disk=FakeDisk(programs={"srv": "/usr/bin/srv"}))
    (fault,) = machine.faults(f"models: [{{name: a, model: org/x, {rest}}}]")
    assert f"models[0].{words}" in fault


def test_a_placeholder_with_a_slip_in_it_is_told(planner: Planner) -> None:
    planner.disk.programs["srv"] = "/usr/bin/srv"
    text = "models: [{name: a, model: m, engine: {command: [srv, '{port}', '{prt}', '{wholly_other}']}}]"
    plan = planner.plan(text)
    assert plan.models[0].argv[2:] == ("{prt}", "{wholly_other}")
    assert [warning for warning in plan.warnings if "command" in warning] == [
        "models[0].engine.command[2]: {prt} stays as it is; did you mean '{port}'?"
    ]


def test_options_that_a_command_merely_inherits_are_no_fault(planner: Planner) -> None:
    machine = replace(planner, disk=FakeDisk(programs={"srv": "/usr/bin/srv"}))
    text = "defaults: {args: {x: 1}}\nmodels: [{name: a, model: m, port: 9000, engine: {command: [srv]}}]"
    assert machine.model(text).argv == ("/usr/bin/srv",)


def test_lora_can_be_enabled_without_adapters(planner: Planner) -> None:
    assert planner.model("models: [{name: a, model: org/x, args: {enable-lora: true}}]").argv[-1] == "--enable-lora"
