"""Models that are not always awake: sleep mode, idleness, demand and turns."""

from __future__ import annotations

import pytest

from tests.plan.conftest import Planner

HEAD = "proxy: {host: localhost}\n"
ONE = HEAD + "models:\n- {name: a, model: org/x, gpus: [0], %s}\n"
TWO = HEAD + "models:\n- {name: a, model: org/x, gpus: [0], %s}\n- {name: b, model: org/x, gpus: [0], %s}\n"


@pytest.mark.parametrize("engine", ["vllm", "simulator"])
def test_sleep_turns_on_the_mode_and_the_routes_behind_a_private_socket(planner: Planner, engine: str) -> None:
    model = planner.model(ONE % f"sleep: true, engine: {engine}")
    assert "--enable-sleep-mode" in model.argv
    assert dict(model.env)["VLLM_SERVER_DEV_MODE"] == "1"
    assert (model.sleeps, model.endpoint.uds) == (True, "/run/vc/default/engine-8001.sock")


def test_without_it_neither_is_there(planner: Planner) -> None:
    model = planner.model(ONE % "")
    assert "--enable-sleep-mode" not in model.argv
    assert "VLLM_SERVER_DEV_MODE" not in dict(model.env)
    assert (model.sleeps, model.endpoint.uds) == (False, None)


def test_what_says_the_same_by_hand_is_fine_and_stands_once(planner: Planner) -> None:
    by_hand = "args: {enable_sleep_mode: true}, env: {VLLM_SERVER_DEV_MODE: '1'}"
    model = planner.model(ONE % f"sleep: true, {by_hand}")
    assert model.argv.count("--enable-sleep-mode") == 1


@pytest.mark.parametrize(
    ("rest", "where", "words"),
    [
        ("sleep: true, args: {enable-sleep-mode: false}", "args.enable-sleep-mode", "says no to what `sleep` (line 3)"),
        ("sleep: true, env: {VLLM_SERVER_DEV_MODE: '0'}", "env.VLLM_SERVER_DEV_MODE", "shuts the routes"),
        ("idle: {after: 60}", "idle", "'a' is to sleep, but its engine has no sleep mode"),
        ("sleep: true, engine: {command: [srv, '{port}']}", "sleep", "a command of your own has no sleep mode"),
        ("exclusive: x, replicas: 1", "", ""),
        ("exclusive: x, gpus: [0, 1], replicas: 2", "exclusive", "replicas are there to be awake side by side"),
    ],
)
def test_contradictions_are_refused(planner: Planner, rest: str, where: str, words: str) -> None:
    planner.disk.programs["srv"] = "/bin/srv"
    text = ONE % rest if "gpus" not in rest else (ONE % rest).replace("gpus: [0], ", "")
    if not words:
        planner.plan(text)
        return
    (fault,) = planner.faults(text)
    assert fault.startswith(f"3: models[0].{where}: {words}")
    assert fault.endswith(")")  # with what to do


def test_a_command_is_told_where_it_stands_when_sleep_is_inherited(planner: Planner) -> None:
    planner.disk.programs["srv"] = "/bin/srv"
    (fault,) = planner.faults("defaults: {sleep: true}\n" + ONE % "engine: {command: [srv, '{port}']}")
    assert fault.startswith("4: models[0].engine: ")


@pytest.mark.parametrize(
    "rest",
    [
        "idle: {after: 60, then: stop}",
        "idle: {after: 60}, sleep: true",
        "idle: {after: 60, level: 2}, sleep: true",
        "on_demand: true",
        "sleep: true",
    ],
)
def test_what_goes_together_is_not_spoken_of(planner: Planner, rest: str) -> None:
    assert planner.plan(ONE % rest).warnings == ()


@pytest.mark.parametrize(
    ("rest", "warning"),
    [
        ("idle: {then: stop}", "models[0].idle: does nothing without `after`"),
        ("on_demand: true, enabled: false", "models[0].on_demand: does nothing: with `enabled: false` no request"),
        ("args: {enable-sleep-mode: true}", "models[0].args.enable-sleep-mode: nobody sends it to sleep"),
        ("exclusive: x", "models[0].exclusive: nobody else has 'x'"),
    ],
)
def test_what_does_nothing_is_told(planner: Planner, rest: str, warning: str) -> None:
    (found,) = planner.plan(ONE % rest).warnings
    assert found.startswith(warning)


def test_a_disabled_model_is_not_on_demand(planner: Planner) -> None:
    assert not planner.model(ONE % "on_demand: true, enabled: false").on_demand
    assert planner.model(ONE % "on_demand: true").on_demand


def test_turns_without_a_common_gpu_are_told(planner: Planner) -> None:
    apart = (TWO % ("exclusive: x", "exclusive: x")).replace(
        "gpus: [0], exclusive: x}\n- ", "gpus: [1], exclusive: x}\n- "
    )
    assert planner.plan(apart).warnings == (
        "models[1].exclusive: 'b' and 'a' (line 3) take turns, though they share no GPU",
    )


def test_on_a_cpu_the_routes_are_there_and_the_mode_is_not(planner: Planner) -> None:
    plan = planner.plan((ONE % "sleep: true").replace("[0]", "[]"))
    (model,) = plan.models
    assert "--enable-sleep-mode" not in model.argv
    assert dict(model.env)["VLLM_SERVER_DEV_MODE"] == "1"
    assert plan.warnings == ("models[0].sleep: frees no memory: vLLM's sleep mode is for GPUs, and `gpus: []` is none",)
