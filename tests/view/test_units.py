"""Numbers as people read them."""

from __future__ import annotations

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


def test_a_quantile_is_interpolated_within_its_bucket() -> None:
    values = histogram(BOUNDS, 0.15, 0.15, 0.15, 0.15)
    assert quantile(values, BOUNDS, 0.5) == pytest.approx(0.15)


def test_a_quantile_in_the_open_bucket_is_its_lower_bound() -> None:
    assert quantile(histogram(BOUNDS, 7.0), BOUNDS, 0.5) == 0.4


def test_there_is_no_quantile_of_nothing() -> None:
    assert quantile(histogram(BOUNDS), BOUNDS, 0.5) is None


@given(some.lists(some.floats(0, 1), min_size=1), some.floats(0, 1), some.floats(0, 1))
def test_quantiles_grow_with_the_share_and_stay_in_range(values: list[float], one: float, other: float) -> None:
    counted = histogram(BOUNDS, *values)
    low, high = (quantile(counted, BOUNDS, share) for share in sorted((one, other)))
    assert low is not None
    assert high is not None
    assert 0 <= low <= high <= 0.4
