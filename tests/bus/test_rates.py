from __future__ import annotations

import pytest

from vllm_circus.bus.messages import ModelCounts
from vllm_circus.bus.rates import Rates


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
