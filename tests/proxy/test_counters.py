"""What a worker counts: tokens from the ends of answers, times in buckets."""

from __future__ import annotations

import itertools
from bisect import bisect_left

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.proxy.scripted import chunk
from vllm_circus.proxy.counters import TAIL_WINDOW, Distribution, kept_before, read_usage
from vllm_circus.proxy.framing import ByChunks

USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":18,"total_tokens":40,"completion_tokens":22}}\n\n'
DELTA = b'data: {"choices":[{"index":0,"delta":{"content":"%b"},"finish_reason":null}]}\n\n'
DONE = b"data: [DONE]\n\n"


def tokens(pieces: list[bytes]) -> tuple[int, int]:
    """What is counted of a stream that comes in these pieces."""
    framing, before, last = ByChunks(), b"", b""
    for piece in pieces:
        framing.feed(piece)
        before = kept_before(before, last, piece, framing.line)
        last = piece[-TAIL_WINDOW:]
    return read_usage(before + last)


@given(
    st.lists(st.integers(0, 3000), max_size=4),
    st.lists(st.sampled_from([DONE, b": ping\n\n", b"\n\n"]), max_size=3),
    st.lists(st.integers(0, 12_000), max_size=12),
)
def test_usage_is_found_however_the_end_of_a_stream_is_cut(
    sizes: list[int], ends: list[bytes], cuts: list[int]
) -> None:
    deltas = [DELTA % (b"x" * size) for size in sizes]
    raw = b"".join(map(chunk, (*deltas, USAGE, *ends))) + b"0\r\n\r\n"
    places = sorted({0, len(raw), *(len(raw) - 1 - cut for cut in cuts if cut < len(raw) - 1)})
    assert tokens([raw[begin:end] for begin, end in itertools.pairwise(places)]) == (18, 22)


def test_usage_is_found_where_each_event_comes_alone() -> None:
    assert tokens([chunk(DELTA % b"a"), chunk(DELTA % b"b"), chunk(USAGE), chunk(DONE), b"0\r\n\r\n"]) == (18, 22)


def test_usage_is_found_where_an_event_is_made_of_several_chunks() -> None:
    half = len(USAGE) - 30
    pieces = [chunk(DELTA % b"a" + USAGE[:half]), chunk(USAGE[half:] + DELTA % (b"b" * 100)), b"0\r\n\r\n"]
    assert tokens(pieces) == (18, 22)


@pytest.mark.parametrize(
    "after",
    [
        [b'event: message_stop\ndata: {"type":"message_stop"}' + b" " * 60 + b"\n\n"],
        [DELTA % (b"x" * 500), DONE],
        [b'data: {"choices":[],"usage":null,"filtered":"%b"}\n\n' % (b"x" * 200), DONE, b": bye\n\n"],
        [b'data: {"metadata":"%b"}\n\n' % (b"x" * 2000), DONE],
    ],
)
def test_usage_is_found_before_what_follows_it(after: list[bytes]) -> None:
    assert tokens([chunk(DELTA % b"a"), *map(chunk, (USAGE, *after)), b"0\r\n\r\n"]) == (18, 22)


@given(st.integers(0, 6000), st.integers(0, 6000))
def test_usage_may_begin_with_a_piece(size: int, more: int) -> None:
    usage = b'"usage":{"prompt_tokens":1,"total_tokens":3,"completion_tokens":2},"ids":"%b"}' % (b"1" * more)
    before = kept_before(b"", b'{"text":"%b",' % (b"x" * size), usage, 0)
    assert read_usage(kept_before(before, usage, b"}", 0) + b"}") == (1, 2)
    assert read_usage(usage) == (1, 2)


def test_of_a_long_stream_little_is_kept() -> None:
    before = last = b""
    for piece in [b"x" * 900] * 100 + [b"x" * 9] * 1000:
        before, last = kept_before(before, last, piece, 0), piece
        assert len(before) <= 4096
    event = chunk(DELTA % (b"a" * 99))
    assert kept_before(before, event, event, 4) is event, "of whole events the last two"


@pytest.mark.parametrize(
    ("tail", "expected"),
    [
        (b'"usage":{"prompt_tokens":1,"total_tokens":3,"completion_tokens":2}', (1, 2)),
        (b'"usage":{"prompt_tokens":1,"total_tokens":3,"completion_tokens":2,"x":{}}', (1, 2)),
        (b'"usage": {"completion_tokens": 2, "prompt_tokens": 1}', (1, 2)),
        (b'"usage" : { "input_tokens" : 1, "output_tokens" : 2 }', (1, 2)),
        (b'"usage":{"prompt_tokens":1,"total_tokens":3,"completion_tokens":2', (1, 2)),
        (b'"usage":{"prompt_tokens":9} "usage":{"prompt_tokens":1}', (1, 0)),
        (b'"content":"\\"usage\\":{\\"prompt_tokens\\":7}" "usage":null', (0, 0)),
        (b'"usage":{"prompt_tokens":%b}' % (b"1" * 12), (111_111_111_111, 0)),
        (b'\\"usage":{"prompt_tokens":1,"total_tokens":3,"completion_tokens":2}', (0, 0)),
        *((tail, (0, 0)) for tail in (b"", b'"usage"', b'"usage":', b'usage":{"prompt_tokens":1}', b'"usage":{}')),
    ],
)
def test_usage_is_read_in_every_spelling(tail: bytes, expected: tuple[int, int]) -> None:
    assert read_usage(tail) == read_usage(b"{" + tail) == expected


@given(st.lists(st.sampled_from([b'"usage"', b":", b"{", b'"prompt_tokens":', b"1", b"\\", b"}", b","])).map(b"".join))
def test_no_end_of_an_answer_breaks_the_counting(tail: bytes) -> None:
    assert min(read_usage(tail)) >= 0


@given(st.lists(st.floats(0, 20) | st.sampled_from([0.5, 1.0, 2.5]), max_size=30), st.integers(0, 30))
def test_each_time_is_in_its_bucket(seconds: list[float], looked_at: int) -> None:
    bounds = (0.5, 1.0, 2.5, 10.0)
    expected = [0] * 5
    distribution = Distribution(bounds)
    for number, value in enumerate(seconds):
        if number == looked_at:
            distribution.snapshot()
        distribution.add(value)
        expected[bisect_left(bounds, value)] += 1
    assert distribution.snapshot().counts == tuple(expected)
