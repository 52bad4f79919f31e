"""Whether it fits, and what to change where it does not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.plan.fit.samples import NAMES, architecture
from vllm_circus.gpu import Gpu
from vllm_circus.plan.fit.advice import advise
from vllm_circus.plan.fit.lessons import Lesson
from vllm_circus.plan.fit.needs import weights_part
from vllm_circus.plan.fit.setup import Setup, cache_number
from vllm_circus.plan.fit.verdict import Case, Verdict
from vllm_circus.plan.fit.weights import Weights

GIB = 1 << 30
MODELS = {name: architecture(name) for name in NAMES}
SIZES = {name: Weights(int(model.parameters * model.stored / 8), "") for name, model in MODELS.items()}


def card(index: int, total: int, used: int | None = None) -> Gpu:
    return Gpu(index, "", "", total * GIB, None if used is None else used * GIB, None, None)


def verdict(name: str = "llama-3-8b", *, gpus: int = 1, size: int = 80, share: float = 0.9, **setup: Any) -> Verdict:
    cards = tuple(card(index, size) for index in range(gpus))
    return Verdict(Case(MODELS[name], SIZES[name], Setup(tensor=gpus, **setup), cards, share))


def test_llama_3_8b_on_an_h100_is_what_vllm_measured() -> None:
    """Figures of vLLM's own run: github.com/vllm-project/vllm/pull/10511 (79.22 GiB, 0.9, no graphs counted)."""
    found = verdict(batch=8192, eager=True)
    assert found.parts["weights"].size / GIB == pytest.approx(14.96, rel=0.01)
    assert found.parts["activations"].size / GIB == pytest.approx(1.26, rel=0.05)
    assert found.room / GIB == pytest.approx(53.29, rel=0.05)


@pytest.mark.parametrize(
    ("name", "gpus", "size", "fits"),
    [
        ("llama-3-8b", 1, 24, True),
        ("llama-3-8b", 1, 16, False),
        ("llama-3-70b", 1, 80, False),
        ("llama-3-70b", 2, 80, True),
        ("llama-3-70b", 2, 48, False),
        ("llama-3-70b", 4, 80, True),
        ("gpt-oss-20b", 1, 24, True),
        ("deepseek-v3", 8, 80, False),
        ("deepseek-v3", 8, 141, True),
    ],
)
def test_what_is_known_to_fit_fits(name: str, gpus: int, size: int, fits: bool) -> None:
    assert verdict(name, gpus=gpus, size=size).fits is fits


def test_what_is_missing_is_told() -> None:
    found = verdict(size=24, context=100_000)
    assert not found.fits
    assert found.room + found.lacks == found.sequence
    assert 0 < found.longest < 100_000
    assert found.with_setup(context=found.longest).fits


def test_an_automatic_context_is_what_there_is_room_for() -> None:
    found = verdict("qwen2.5-7b", size=18, automatic=True)
    assert found.fits
    assert found.context == found.longest < 32_768


def test_the_smallest_card_decides() -> None:
    case = replace(verdict(gpus=2).case, cards=(card(0, 80), card(1, 24)))
    assert Verdict(case).memory == 24 * GIB


def test_a_cache_of_a_written_size_is_no_larger() -> None:
    found = verdict(cache_bytes=2 * GIB, share=0.1)
    assert (found.fits, found.room, found.budget) == (True, 2 * GIB, 80 * GIB)
    short = verdict(cache_bytes=GIB // 2)
    assert not short.fits
    assert advise(short)[0].change == "max-model-len: 4096"
    assert [one.change for one in advise(short) if "memory" in one.change] == ["kv-cache-memory-bytes: null"]


def test_a_share_that_is_not_free_now_is_told() -> None:
    case = verdict(gpus=2).case
    assert Verdict(case).busy == ()  # nobody tells
    taken = replace(case, cards=(card(0, 80, 1), card(1, 80, 60)))
    assert [one.index for one in Verdict(taken).busy] == [1]


def test_what_an_earlier_load_told_counts() -> None:
    case = replace(verdict().case, lesson=Lesson({}, 15 * GIB, 50 * GIB, 400_000), costs=True, tokens=True)
    found = Verdict(case)
    assert [(name, part.origin) for name, part in found.parts.items()] == [
        ("weights", "told by its last load"),
        ("while it runs", "told by its last load"),
    ]
    assert found.taken == 15 * GIB + int(80 * GIB * 0.92) - 65 * GIB
    assert found.token == round(50 * GIB / 400_000)
    other = found.with_setup(tensor=2)
    assert other.parts["weights"].origin != "told by its last load"
    assert Verdict(replace(case, costs=False)).parts["activations"].origin == "estimated"


def test_a_cache_that_was_told_of_does_not_count_where_windows_blur_it() -> None:
    case = verdict("gemma-3-27b").case
    assert Verdict(replace(case, lesson=Lesson({}, 50 * GIB, 10 * GIB, 999_999), tokens=True)).scale == 1


@pytest.mark.parametrize(
    ("name", "setup", "share"),
    [
        ("llama-3-8b", Setup(), 1.0),
        ("llama-3-8b", Setup(tensor=2), 0.5),
        ("llama-3-8b", Setup(number=4), 2.0),
        ("gemma-2-9b", Setup(), 0.5),  # 32 bits in the files become 16
        ("llama-3-8b", Setup(quantisation="awq"), 1.0),
        ("gpt-oss-20b", Setup(quantisation="fp8"), 1.0),
    ],
)
def test_weights_are_counted_as_vllm_loads_them(name: str, setup: Setup, share: float) -> None:
    weights = Weights(10**10, "")
    assert weights_part(MODELS[name], weights, setup).size == pytest.approx(10**10 * share, rel=0.001)


def test_weights_turned_into_8_bits_leave_embeddings_as_they_are() -> None:
    turned = weights_part(MODELS["llama-3-8b"], SIZES["llama-3-8b"], Setup(quantisation="fp8")).size
    assert 0.5 < turned / SIZES["llama-3-8b"].size < 0.6


def changes(found: Verdict) -> list[str]:
    return [one.change for one in advise(found)]


def test_what_fits_needs_no_advice() -> None:
    assert changes(verdict()) == []


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (verdict(size=24, context=8192, share=0.65), ["gpu_memory: 0.73"]),
        (verdict("phi-3-mini", size=12, context=10_000), ["max-model-len: 4096", "kv-cache-dtype: fp8"]),
        (verdict("llama-3-70b"), ["a 4-bit model (AWQ, GPTQ)", "gpus: 2 of them"]),
        (verdict("llama-3-70b", size=96), ["quantization: fp8"]),
        (verdict("deepseek-v3", gpus=8), ["gpus: 16 of them"]),
    ],
)
def test_proposals_are_concrete(found: Verdict, expected: list[str]) -> None:
    assert set(expected) <= set(changes(found))


def test_a_context_beyond_what_the_model_was_made_for_is_not_proposed() -> None:
    assert changes(verdict(size=24, context=100_000))[0] == "max-model-len: 8192"


def test_where_nothing_helps_alone_some_are_proposed_together() -> None:
    model = replace(MODELS["phi-3-mini"], heads=1, quantised=True)  # no number of GPUs helps, and no fewer bits
    case = Case(model, Weights(int(6.8 * GIB), ""), Setup(context=8192), (card(0, 9),), 0.9)
    assert changes(Verdict(case)) == ["kv-cache-dtype: fp8, max-model-len: 1536"]
    assert changes(Verdict(replace(case, weights=Weights(24 * GIB, "")))) == []


@given(
    name=st.sampled_from(NAMES),
    gpus=st.sampled_from([1, 2, 4, 8]),
    size=st.integers(8, 192),
    share=st.floats(0.05, 1),
    context=st.integers(1, 200_000),
    dtype=st.sampled_from(["auto", "fp8"]),
)
def test_advice_is_never_given_without_need_and_the_answer_never_contradicts_itself(
    name: str, gpus: int, size: int, share: float, context: int, dtype: str
) -> None:
    setup = {"context": context, "cache_dtype": dtype, "cache_number": cache_number(dtype)}
    found = verdict(name, gpus=gpus, size=size, share=share, **setup)
    assert found.fits is (found.lacks == 0)
    assert found.fits is (found.longest >= min(context, found.longest + 1) and found.room >= 0)
    assert not (found.fits and advise(found))
    larger = verdict(name, gpus=gpus, size=size + 8, share=share, **setup)
    assert larger.fits >= found.fits
    assert larger.longest >= found.longest


@given(name=st.sampled_from(NAMES), size=st.integers(8, 192), one=st.integers(1, 10**6), other=st.integers(1, 10**6))
def test_what_fits_with_a_long_context_fits_with_a_short_one(name: str, size: int, one: int, other: int) -> None:
    short, long = sorted((one, other))
    assert verdict(name, size=size, context=short).fits >= verdict(name, size=size, context=long).fits
