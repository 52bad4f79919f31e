"""The sum of what is promised of each GPU."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.plan.conftest import Planner, gpu

HEAD = "proxy: {host: localhost}\nmodels:\n"


def models(*rest: str) -> str:
    """Models a, b, … from line 3 on, on GPU 0 where nothing else is said."""
    lines = [
        f"- {{name: {name}, model: org/x, {'' if 'gpus' in text else 'gpus: [0], '}{text}}}\n"
        for name, text in zip("abcdefgh", rest, strict=False)
    ]
    return HEAD + "".join(lines)


@pytest.mark.parametrize(
    "rest",
    [
        ("gpu_memory: 0.5", "gpu_memory: 0.45"),
        ("gpu_memory: 40 GiB", "gpu_memory: 0.4"),
        ("gpu_memory: 0.9", "gpu_memory: 0.9, enabled: false"),
        ("gpu_memory: 0.9", "gpu_memory: 0.9, gpus: [1]"),
        ("exclusive: x", "exclusive: x"),
        ("exclusive: x, sleep: true", "exclusive: x, sleep: true"),
        ("exclusive: x, gpu_memory: 0.5", "exclusive: x, gpu_memory: 0.4", "gpu_memory: 0.4"),
        ("gpus: [0, 1], gpu_memory: 0.5", "gpu_memory: 0.4", "gpus: [1], gpu_memory: 0.4"),
        ("gpus: [0, 1], replicas: 2, gpu_memory: 0.5", "gpus: [1], gpu_memory: 0.4"),
    ],
)
def test_what_fits_is_not_spoken_of(planner: Planner, rest: tuple[str, ...]) -> None:
    assert planner.plan(models(*rest)).warnings == ()


def test_more_than_the_card_is_refused_with_every_model_its_line_and_its_share(planner: Planner) -> None:
    assert planner.faults(models("gpu_memory: 0.5", "gpu_memory: 24 GiB", "gpu_memory: 0.25, on_demand: true")) == [
        (
            "5: models[2].gpu_memory: GPU 0: 1.05 of the memory is promised: 'a' (line 3) 0.5, 'b' (line 4) 0.3, "
            "'c' (line 5) 0.25 (take 0.05 away from them, give one another GPU, or let some take turns "
            "(one `exclusive` name))"
        )
    ]


def test_the_same_sum_on_several_gpus_is_told_once(planner: Planner) -> None:
    (fault,) = planner.faults(models("gpus: [0, 1, 2], gpu_memory: 0.8", "gpus: [2, 1, 0], gpu_memory: 0.8"))
    assert "GPUs 0, 1, 2: 1.6 of the memory is promised" in fault


def test_replicas_count_on_their_own_gpus(planner: Planner) -> None:
    (fault,) = planner.faults(models("gpus: [0, 1], replicas: 2, gpu_memory: 0.5", "gpus: [1], gpu_memory: 0.6"))
    assert "GPU 1: 1.1 of the memory is promised: 'a' (line 3) 0.5, 'b' (line 4) 0.6" in fault


def test_models_that_take_turns_count_as_the_largest_of_them_and_what_the_others_keep_asleep(planner: Planner) -> None:
    turns = ("exclusive: x, sleep: true, gpu_memory: 0.6", "exclusive: x, sleep: true, gpu_memory: 0.5")
    (fault,) = planner.faults(models(*turns, "gpu_memory: 0.4"))
    assert "1.0125 of the memory is promised: 'a' (line 3) 0.6 or 'b' (line 4) 0.5, and 0.0125 for what sleeps" in fault
    planner.plan(models(*(text.replace("sleep: true", "sleep: false") for text in turns), "gpu_memory: 0.4"))


def test_almost_all_of_a_card_is_told_of(planner: Planner) -> None:
    (warning,) = planner.plan(models("gpu_memory: 0.5", "gpu_memory: 0.5")).warnings
    assert warning == (
        "models[1].gpu_memory: GPU 0: 1 of the memory is promised: 'a' (line 3) 0.5, 'b' (line 4) 0.5; "
        "each engine takes about half a GiB beside its share, so leave 0.05"
    )


@pytest.mark.parametrize(
    ("rest", "silent"),
    [
        (("gpu_memory: 0.5", ""), "'b'"),
        (("", "gpu_memory: 0.5"), "'a'"),
        (("exclusive: x", "exclusive: y"), "'a' and 'b'"),
        (("exclusive: x", "args: {gpu-memory-utilization: 0.1}"), "'a' and 'b'"),
    ],
)
def test_who_shares_without_a_word_is_refused(planner: Planner, rest: tuple[str, ...], silent: str) -> None:
    (fault,) = planner.faults(models(*rest))
    assert "4: models[1].gpus[0]: GPU 0 already belongs to 'a' (line 3)" in fault
    assert f"write `gpu_memory` for {silent}, so that they share it" in fault


def test_what_vllm_takes_by_itself_counts_for_models_that_take_turns(planner: Planner) -> None:
    small = replace(gpu(0), memory_total=8 << 30)
    turns = models("exclusive: x, sleep: true", "exclusive: x, sleep: true")
    (fault,) = planner.given(gpus=(small,)).faults(turns)
    assert "'a' (line 3) 0.92 or 'b' (line 4) 0.92, and 0.125 for what sleeps" in fault


def test_a_simulator_whose_card_nobody_knows_is_not_added_up(planner: Planner) -> None:
    text = models("gpu_memory: 60 GiB, engine: simulator", "gpu_memory: 60 GiB, engine: simulator")
    warnings = planner.given(gpus=None).plan(text).warnings
    assert [warning for warning in warnings if "nothing is added up" in warning] == [
        f"models[{index}].gpu_memory: nobody tells how large the GPUs are, so that 60 GiB of them cannot be turned "
        "into a part, and nothing is added up"
        for index in (0, 1)
    ]


@given(st.lists(st.integers(1, 100), min_size=2, max_size=8))
def test_a_sum_is_refused_exactly_where_it_is_above_the_card(parts: list[int]) -> None:
    text = models(*(f"gpu_memory: {part / 100}" for part in parts))
    if sum(parts) > 100:
        (fault,) = Planner().faults(text)
        assert f"take {(sum(parts) - 100) / 100:.4g} away" in fault
    else:
        assert bool(Planner().plan(text).warnings) is (sum(parts) > 95)
