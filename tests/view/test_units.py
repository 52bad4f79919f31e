"""Numbers as people read them."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as some

from tests.view.pictures import histogram
from vllm_circus.view.units import count, duration, latency, quantile, rate, size


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0B"),
        (1023, "1023B"),
        (1024, "1.0K"),
        (1536, "1.5K"),
        (1 << 20, "1.0M"),
        (80 << 30, "80.0G"),
        (1 << 60, "1024.0P"),
    ],
)
def test_sizes_have_binary_units(value: int, text: str) -> None:
    assert size(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(-5, "0s"), (0, "0s"), (59.9, "59s"), (60, "1m00s"), (192, "3m12s"), (18180, "5h03m"), (1_051_200, "12d4h")],
)
def test_durations_have_two_units_at_most(value: float, text: str) -> None:
    assert duration(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "<1ms"),
        (0.0849, "85ms"),
        (0.9996, "1.00s"),
        (2.346, "2.35s"),
        (12.44, "12.4s"),
        (59.99, "59s"),
        (61, "1m01s"),
    ],
)
def test_latencies_keep_three_digits(value: float, text: str) -> None:
    assert latency(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.01, "0"), (3.21, "3.2"), (9.96, "10"), (312.4, "312"), (123456, "123k"), (4.5e6, "4.5M")],
)
def test_rates_are_short(value: float, text: str) -> None:
    assert rate(value) == text


@given(some.integers(0, 10**13))
def test_no_number_is_longer_than_seven_characters(value: int) -> None:
    assert len(count(min(value, 10**11))) <= 7
    assert len(size(value)) <= 7
    assert len(duration(min(value, 10**9))) <= 7


BOUNDS = (0.1, 0.2, 0.4)


#: Values on and between the bounds, and some in the open bucket.
times = some.floats(0, 1) | some.sampled_from(BOUNDS)


def test_a_quantile_of_one_bucket_is_the_mean() -> None:
    values = histogram(BOUNDS, 0.11, 0.12, 0.13)
    assert [quantile(values, BOUNDS, share) for share in (0.5, 0.95)] == pytest.approx([0.12, 0.12])


def test_quantiles_of_several_buckets_are_as_far_up_in_each_as_the_sum_says() -> None:
    values = histogram(BOUNDS, 0.02, 0.02, 0.02, 0.24)
    assert [quantile(values, BOUNDS, share) for share in (0.5, 0.95)] == pytest.approx([0.02, 0.24])


def test_a_quantile_in_the_open_bucket_goes_by_the_sum() -> None:
    assert quantile(histogram(BOUNDS, 7.0, 9.0), BOUNDS, 0.5) == pytest.approx(8.0)
    assert quantile(replace(histogram(BOUNDS, 7.0), total=0.0), BOUNDS, 0.5) == 0.4  # never below the bucket


@given(some.floats(0, 1000), some.integers(1, 100), some.floats(0, 1))
def test_a_quantile_of_equal_values_is_exact(value: float, number: int, share: float) -> None:
    assert quantile(histogram(BOUNDS, *[value] * number), BOUNDS, share) == pytest.approx(value, abs=1e-9)


@given(some.lists(times, min_size=1), some.floats(0, 1))
def test_a_quantile_lies_in_the_bucket_of_the_true_one(values: list[float], share: float) -> None:
    true = sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
    at = bisect_left(BOUNDS, true)
    estimate = quantile(histogram(BOUNDS, *values), BOUNDS, share)
    assert estimate is not None
    assert (0.0, *BOUNDS)[at] <= estimate <= (*BOUNDS, math.inf)[at]


@given(some.lists(times, min_size=1))
def test_quantiles_of_all_add_up_to_the_sum(values: list[float]) -> None:
    counted = histogram(BOUNDS, *values)
    ranks = [quantile(counted, BOUNDS, (rank - 0.5) / len(values)) or 0.0 for rank in range(1, len(values) + 1)]
    assert sum(ranks) == pytest.approx(sum(values), abs=1e-9)


def test_there_is_no_quantile_of_nothing() -> None:
    assert quantile(histogram(BOUNDS), BOUNDS, 0.5) is None


@given(some.lists(times, min_size=1), some.floats(0, 1), some.floats(0, 1), some.floats(0, 100))
def test_quantiles_grow_with_the_share_whatever_the_sum(
    values: list[float], one: float, other: float, total: float
) -> None:
    counted = replace(histogram(BOUNDS, *values), total=total)
    low, high = (quantile(counted, BOUNDS, share) for share in sorted((one, other)))
    assert low is not None
    assert high is not None
    assert 0 <= low <= high
