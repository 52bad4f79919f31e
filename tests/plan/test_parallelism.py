"""How a model is spread over its GPUs."""

from __future__ import annotations

import pytest

from tests.plan.conftest import Planner

PROFILE = "profiles: {p: {args: {tensor-parallel-size: 4, pipeline_parallel_size: 2}}}\nproxy: {host: localhost}\n"


def model(rest: str) -> str:
    return f"{PROFILE}models:\n- {{name: a, model: org/x, {rest}}}\n"


def sizes(planner: Planner, rest: str) -> str:
    argv = planner.model(model(rest)).argv
    return " ".join(argv[argv.index("a") + 1 :])


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        ("gpus: [0]", ""),
        ("gpus: [0, 1]", "--tensor-parallel-size 2"),
        ("gpus: [0, 1, 2], profile: p", "--tensor-parallel-size 3"),
        ("gpus: [0], profile: p", ""),
        ("gpus: [0,1,2,3,4,5,6,7], profile: p", "--tensor-parallel-size 4 --pipeline-parallel-size 2"),
        ("profile: p", "--tensor-parallel-size 4 --pipeline-parallel-size 2"),
        ("gpus: [], profile: p", "--tensor-parallel-size 4 --pipeline-parallel-size 2"),
        ("gpus: [0, 1], args: {pipeline-parallel-size: 2}", "--pipeline-parallel-size 2"),
        (
            "gpus: [0,1,2,3], args: {pp: 1, pipeline-parallel-size: 2}",
            "--pp 1 --pipeline-parallel-size 2 --tensor-parallel-size 2",
        ),
        ("gpus: [0, 1], args: {data-parallel-size: 2}", "--data-parallel-size 2"),
        ("gpus: [0, 1], profile: p, args: {tensor-parallel-size: '2'}", "--tensor-parallel-size 2"),
        ("gpus: [0], args: {tensor-parallel-size: 1}", "--tensor-parallel-size 1"),
        ("gpus: [0, 1], args: {enable-expert-parallel: true}", "--enable-expert-parallel --tensor-parallel-size 2"),
    ],
)
def test_the_gpu_list_decides(planner: Planner, rest: str, expected: str) -> None:
    assert sizes(planner, rest) == expected


def test_a_profile_that_is_overridden_is_told(planner: Planner) -> None:
    assert planner.plan(model("gpus: [0], profile: p")).warnings == (
        (
            "models[0].gpus: GPU selection overrides profile parallelism settings: "
            "tensor-parallel-size 4, pipeline-parallel-size 2 is dropped, the model has 1 GPU"
        ),
    )


def test_a_profile_that_fits_or_says_nothing_is_not_told(planner: Planner) -> None:
    assert planner.plan(model("gpus: [0, 1, 2, 3, 4, 5, 6, 7], profile: p")).warnings == ()
    assert planner.plan(model("gpus: [0, 1]")).warnings == ()


@pytest.mark.parametrize(
    ("args", "gpus", "words"),
    [
        ("tensor-parallel-size: 4", "[0, 1]", "tensor-parallel-size 4 needs 4 GPUs, `gpus` lists 2"),
        ("tensor-parallel-size: 2", "[0]", "tensor-parallel-size 2 needs 2 GPUs, `gpus` lists 1"),
        ("pipeline-parallel-size: 2", "[0, 1, 2]", "pipeline-parallel-size 2 needs 2 GPUs, `gpus` lists 3"),
        ("tensor-parallel-size: 2, data-parallel-size: 2", "[0, 1]", "needs 4 GPUs, `gpus` lists 2"),
        ("tensor-parallel-size: two", "[0, 1]", "needs a whole number from 1, not 'two'"),
        ("tensor-parallel-size: 0", "[0, 1]", "needs a whole number from 1, not 0"),
    ],
)
def test_own_sizes_that_cannot_fit_are_refused(planner: Planner, args: str, gpus: str, words: str) -> None:
    (fault,) = planner.faults(model(f"gpus: {gpus}, args: {{{args}}}"))
    assert words in fault
    assert ".args." in fault


def test_own_sizes_that_leave_a_gpu_idle_are_told(planner: Planner) -> None:
    plan = planner.plan(model("gpus: [0, 1], args: {tensor-parallel-size: 1}"))
    assert plan.warnings == ("models[0].args.tensor-parallel-size: tensor-parallel-size 1 uses 1 of the 2 GPUs",)
