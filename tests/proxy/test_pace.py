"""How long a body may take: neither silence nor a drip, and no blame for time in which we did not read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_circus.proxy.pace import SLOWEST, body_deadline

TIMEOUT = 15.0


def given_up(gap: float, size: int, pauses: dict[int, float] | None = None, pieces: int = 10_000) -> float | None:
    """When a body is given up whose pieces of `size` bytes come every `gap` seconds from 100 on; None where never.

    `pauses`: after which piece nothing is read for how long.
    """
    began = now = 100.0
    paused = 0.0
    deadline = body_deadline(began, now, 0, header_timeout=TIMEOUT)
    for piece in range(1, pieces + 1):
        now += gap
        if now >= deadline:
            return deadline - began
        deadline = body_deadline(began, now, piece * size, header_timeout=TIMEOUT, paused=paused)
        pause = (pauses or {}).get(piece, 0.0)
        if pause:
            now += pause
            paused += pause
            deadline = body_deadline(began, now, piece * size, header_timeout=TIMEOUT, paused=paused)
    return None


def test_silence_ends_it_after_the_timeout() -> None:
    assert given_up(gap=20, size=1 << 20) == TIMEOUT


def test_a_byte_now_and_then_does_not_keep_it_alive() -> None:
    assert given_up(gap=14, size=1) == pytest.approx(TIMEOUT + 1 / SLOWEST)
    assert given_up(gap=1, size=1) == pytest.approx(TIMEOUT + 15 / SLOWEST)


def test_a_slow_client_has_all_the_time_that_its_body_needs() -> None:
    assert given_up(gap=1, size=SLOWEST) is None
    assert given_up(gap=14, size=14 * SLOWEST) is None


def test_a_little_below_the_slowest_rate_is_given_up_in_the_end() -> None:
    after = given_up(gap=1, size=SLOWEST - 50)
    assert after is not None
    assert after == pytest.approx(10 * TIMEOUT, abs=10)


def test_a_large_beginning_does_not_buy_a_long_silence() -> None:
    assert body_deadline(0, 1, 8 << 20, header_timeout=TIMEOUT) == 1 + TIMEOUT


def test_time_in_which_nothing_was_read_does_not_count() -> None:
    assert given_up(gap=1, size=SLOWEST, pauses={5: 300.0, 6: 2.0}) is None
    assert given_up(gap=1, size=SLOWEST, pauses={5: 300.0}, pieces=400) is None
    without, with_pause = given_up(gap=1, size=1), given_up(gap=1, size=1, pauses={5: 300.0})
    assert without is not None
    assert with_pause == pytest.approx(without + 300)


def test_a_pause_does_not_lengthen_the_silence_that_follows_it() -> None:
    assert body_deadline(0, 310, 1 << 20, header_timeout=TIMEOUT, paused=300) == 310 + TIMEOUT


TIMES = st.floats(0, 1e5)


@given(TIMES, TIMES, st.integers(0, 1 << 30), st.floats(0.01, 600), st.floats(0, 1), st.integers(0, 1 << 20))
def test_more_bytes_and_pauses_never_shorten_it_and_it_never_waits_longer_than_the_timeout(
    began: float, since: float, received: int, timeout: float, share: float, more: int
) -> None:
    now = began + since
    deadline = body_deadline(began, now, received, header_timeout=timeout)
    assert deadline <= now + timeout
    assert body_deadline(began, now, received + more, header_timeout=timeout) >= deadline
    assert body_deadline(began, now, received, header_timeout=timeout, paused=share * since) >= deadline
    if received >= SLOWEST * since:
        assert deadline == pytest.approx(now + timeout)
