"""`gpu_memory`: what it comes to on the engine's GPUs, and what vLLM is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.plan.conftest import Planner, gpu

Options = Callable[[str], list[str]]
ONE = "proxy: {host: localhost}\nmodels:\n- {name: a, model: org/x, gpus: [0], %s}\n"


def utilisation(argv: tuple[str, ...]) -> str | None:
    return argv[argv.index("--gpu-memory-utilization") + 1] if "--gpu-memory-utilization" in argv else None


@pytest.mark.parametrize(
    ("written", "share"),
    [("0.4", 0.4), ("1.0", 1.0), ("20 GiB", 0.25), ("20GiB", 0.25), ("0.5 GiB", 0.0062), ("0.001 GiB", 0.0001)],
)
def test_a_fraction_and_an_amount_become_vllms_share(planner: Planner, written: str, share: float) -> None:
    model = planner.model(ONE % f"gpu_memory: {written}")
    assert (model.memory_share, utilisation(model.argv)) == (share, str(share))


def test_the_smallest_of_several_gpus_decides(planner: Planner) -> None:
    small = planner.given(gpus=(gpu(0), replace(gpu(1), memory_total=40 << 30)))
    assert small.model(ONE.replace("[0]", "[0, 1]") % "gpu_memory: 20 GiB").memory_share == 0.5
    assert small.model(ONE % "gpu_memory: 20 GiB").memory_share == 0.25
    assert small.model(ONE.replace("gpus: [0], ", "") % "gpu_memory: 20 GiB").memory_share == 0.5


def test_each_replica_has_the_share_of_its_own_gpus(planner: Planner) -> None:
    small = planner.given(gpus=(gpu(0), replace(gpu(1), memory_total=40 << 30)))
    first, second = small.plan(ONE.replace("[0]", "[0, 1]") % "gpu_memory: 20 GiB, replicas: 2").models
    assert (first.memory_share, second.memory_share) == (0.25, 0.5)


def test_nothing_written_is_nothing_said(planner: Planner) -> None:
    model = planner.model(ONE % "")
    assert (model.memory_share, utilisation(model.argv)) == (None, None)


def test_what_args_say_is_the_share_as_well(planner: Planner) -> None:
    assert planner.model(ONE % "args: {gpu_memory_utilization: 0.3}").memory_share == 0.3
    assert planner.model(ONE % "args: {gpu-memory-util: nonsense}").memory_share is None


def test_it_wins_over_profiles_and_defaults(planner: Planner) -> None:
    text = "defaults: {args: {gpu-memory-utilization: 0.9}}\n" + ONE % "gpu_memory: 0.4, profile: low_memory"
    assert utilisation(planner.model(text).argv) == "0.4"


@pytest.mark.parametrize("option", ["gpu-memory-utilization", "gpu_memory_utilization", "gpu-memory-util"])
def test_both_in_one_model_are_refused(planner: Planner, option: str) -> None:
    (fault,) = planner.faults(ONE % f"gpu_memory: 0.4, args: {{{option}: 0.9}}")
    assert f"models[0].args.{option}: `gpu_memory` (line 3) says what this says (keep one of the two" in fault


def test_both_in_the_defaults_are_refused(planner: Planner) -> None:
    text = "defaults: {gpu_memory: 0.4, args: {gpu-memory-utilization: 0.9}}\n" + ONE % ""
    (fault,) = planner.faults(text)
    assert "1: defaults.args.gpu-memory-utilization" in fault


@pytest.mark.parametrize("written", ["0 GiB", "81 GiB"])
def test_an_amount_that_the_card_does_not_have_is_refused(planner: Planner, written: str) -> None:
    (fault,) = planner.faults(ONE % f"gpu_memory: {written}")
    assert f"{written} is no part of it: GPU 0 has 80.0 GiB" in fault


def test_an_amount_of_a_card_that_nobody_knows_is_refused(planner: Planner) -> None:
    (fault,) = planner.given(gpus=None).faults(ONE % "gpu_memory: 20 GiB")
    assert "nobody tells how large the GPUs are" in fault
    assert "write a fraction" in fault
    assert planner.given(gpus=None).model(ONE % "gpu_memory: 0.25").memory_share == 0.25


def test_a_gpu_that_does_not_exist_is_told_once(planner: Planner) -> None:
    (fault,) = planner.faults(ONE.replace("[0]", "[99]") % "gpu_memory: 20 GiB")
    assert "there is no GPU 99" in fault


def test_a_fixed_cache_beside_it_is_told_of(planner: Planner) -> None:
    (warning,) = planner.plan(ONE % "gpu_memory: 0.5, args: {kv-cache-memory-bytes: 1G}").warnings
    assert warning.startswith("models[0].args.kv-cache-memory-bytes: vLLM takes this for its cache")


def test_on_a_cpu_it_does_nothing_and_that_is_told(planner: Planner) -> None:
    plan = planner.plan(ONE.replace("[0]", "[]") % "gpu_memory: 20 GiB")
    assert plan.warnings == ("models[0].gpu_memory: does nothing: `gpus: []` serves from the CPU",)
    assert utilisation(plan.models[0].argv) is None


def test_a_command_of_ones_own_states_what_it_takes(planner: Planner) -> None:
    planner.disk.programs["srv"] = "/bin/srv"
    model = planner.model(ONE % "gpu_memory: 20 GiB, engine: {command: [srv, '{port}']}")
    assert (model.memory_share, model.argv) == (0.25, ("/bin/srv", "8001"))
