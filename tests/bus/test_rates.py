from __future__ import annotations

import pytest

from tests.view.pictures import histogram
from vllm_circus.bus.messages import FIRST_TOKEN_BUCKETS, ModelCounts
from vllm_circus.bus.rates import FirstTokens, Rates


def test_rates_are_of_the_last_ten_seconds() -> None:
    rates = Rates()
    assert rates.requests() == {}
    for second in range(31):
        busy = min(second, 15)  # silent after fifteen seconds
        rates.note(float(second), {"a": ModelCounts(statuses={200: 4 * busy}, chunks=100 * busy)})
        if second == 12:
            assert rates.requests() == {"a": pytest.approx(4.0)}
            assert rates.tokens() == {"a": pytest.approx(100.0)}
    assert rates.requests() == {"a": 0.0}
    assert rates.tokens() == {"a": 0.0}


def test_no_token_is_counted_twice_where_streams_tell_their_usage_too() -> None:
    rates = Rates()
    rates.note(0.0, {})
    rates.note(10.0, {"a": ModelCounts(chunks=500, completion_tokens=510)})
    assert rates.tokens() == {"a": 51.0}


def test_a_count_that_falls_is_no_negative_rate() -> None:
    rates = Rates()
    rates.note(0.0, {"a": ModelCounts(statuses={200: 50})})
    rates.note(1.0, {"a": ModelCounts()})
    assert rates.requests() == {"a": 0.0}


def test_first_tokens_are_of_the_last_minute() -> None:
    tokens = FirstTokens()
    assert tokens.recent() == {}
    early, late = histogram(FIRST_TOKEN_BUCKETS, 0.3), histogram(FIRST_TOKEN_BUCKETS, 0.3, 0.02, 0.02)
    for second in range(100):
        counts = {"a": ModelCounts(first_token=late if second >= 90 else early), "quiet": ModelCounts()}
        tokens.note(float(second), counts)
        if second == 30:
            assert tokens.recent() == {}
    (recent,) = tokens.recent().values()
    assert recent.counts == histogram(FIRST_TOKEN_BUCKETS, 0.02, 0.02).counts
    assert recent.total == pytest.approx(0.04)


def test_first_tokens_of_a_model_that_is_new_all_count() -> None:
    tokens = FirstTokens()
    tokens.note(0.0, {})
    tokens.note(1.0, {"a": ModelCounts(first_token=histogram(FIRST_TOKEN_BUCKETS, 0.3))})
    assert tokens.recent()["a"].count == 1


def test_sums_that_fall_are_no_first_tokens() -> None:
    tokens = FirstTokens()
    tokens.note(0.0, {"a": ModelCounts(first_token=histogram(FIRST_TOKEN_BUCKETS, 0.3, 0.3))})
    tokens.note(1.0, {"a": ModelCounts()})
    assert tokens.recent() == {}
