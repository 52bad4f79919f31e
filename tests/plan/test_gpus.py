"""GPUs: only those that exist, and one serves one model where nobody says how to share it."""

from __future__ import annotations

import pytest

from tests.plan.conftest import Planner, gpu

TWO = "models:\n- {name: a, model: org/x, gpus: [0, 1]}\n- {name: b, model: org/x, gpus: [1]}\n"


def test_the_gpus_are_pinned_by_nvidia_smis_index(planner: Planner) -> None:
    model = planner.model("models: [{name: a, model: org/x, gpus: [3, 1]}]")
    assert model.gpus == (3, 1)
    assert dict(model.env)["CUDA_VISIBLE_DEVICES"] == "3,1"
    assert dict(model.env)["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"


def test_an_empty_list_hides_every_gpu(planner: Planner) -> None:
    model = planner.model("models: [{name: a, model: org/x, gpus: []}]")
    assert (model.gpus, dict(model.env)["CUDA_VISIBLE_DEVICES"]) == ((), "")


def test_without_a_list_the_variable_is_left_alone(planner: Planner) -> None:
    model = planner.model("models: [{name: a, model: org/x}]")
    assert (model.gpus, "CUDA_VISIBLE_DEVICES" in dict(model.env)) == (None, False)


def test_two_enabled_models_on_one_gpu_are_refused(planner: Planner) -> None:
    assert planner.faults(TWO) == [
        (
            "3: models[1].gpus[0]: GPU 1 already belongs to 'a' (line 2) "
            "(give each model GPUs of its own; or write `gpu_memory` for 'a' and 'b', so that they share it; "
            "or one `exclusive` name for both, so that they take turns; or `enabled: false` for one)"
        ),
    ]


def test_a_disabled_model_may_share(planner: Planner) -> None:
    assert planner.plan(TWO.replace("gpus: [1]", "gpus: [1], enabled: false")).warnings


@pytest.mark.parametrize(
    ("indices", "there", "words"),
    [
        ("[99]", 2, "there is no GPU 99 (this machine has 0, 1"),
        ("[0]", 0, "there is no GPU 0 (this machine has no GPU"),
    ],
)
def test_an_index_that_does_not_exist_is_refused(planner: Planner, indices: str, there: int, words: str) -> None:
    machine = planner.given(gpus=tuple(gpu(index) for index in range(there)))
    (fault,) = machine.faults(f"models: [{{name: a, model: org/x, gpus: {indices}}}]")
    assert words in fault


def test_an_index_that_stands_twice_is_refused(planner: Planner) -> None:
    (fault,) = planner.faults("models: [{name: a, model: org/x, gpus: [0, 0]}]")
    assert fault == "1: models[0].gpus[1]: GPU 0 stands twice (write each index once)"


def test_without_a_driver_indices_pass_with_a_warning(planner: Planner) -> None:
    plan = planner.given(gpus=None).plan("proxy: {host: localhost}\nmodels: [{name: a, model: org/x, gpus: [7]}]")
    assert plan.warnings == ("no GPU driver was found, so GPU indices could not be checked",)
