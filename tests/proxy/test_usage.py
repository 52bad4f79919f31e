"""Taking the usage out of a stream: that one event and nothing else."""

from __future__ import annotations

import itertools
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_circus.proxy.usage import LONGEST_EVENT, UsageFilter, as_chunk

COUNTS = b'{"prompt_tokens":12,"total_tokens":19,"completion_tokens":7}'
CHAT = b'{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m","choices":[%b]'
#: As vLLM sends them.
ROLE = b"data: " + CHAT % b'{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null}' + b"}\n\n"
TOKEN = b"data: " + CHAT % b'{"index":0,"delta":{"content":"hi \\"usage\\":{"},"finish_reason":null}' + b"}\n\n"
USAGE = b"data: " + CHAT % b"" + b',"usage":' + COUNTS + b"}\n\n"
COMPLETION_USAGE = (
    b'data: {"id":"cmpl-1","object":"text_completion","created":1,"model":"m","choices":[],"usage":' + COUNTS + b"}\n\n"
)
CONTINUOUS = b"data: " + CHAT % b'{"index":0,"delta":{"content":"x"}}' + b',"usage":' + COUNTS + b"}\n\n"
NULL = b"data: " + CHAT % b'{"index":0,"delta":{"content":"x"}}' + b',"usage":null}\n\n'
DONE = b"data: [DONE]\n\n"
PASS = [
    *(ROLE, TOKEN, CONTINUOUS, NULL, DONE, b": ping\n\n", b"\n", b"\n\n", b'data: {"error":{"message":"usage"}}\n\n'),
    b"data: " + CHAT % b"" + b"}\n\n",  # no choices, no usage
    b"data: " + CHAT % b"" + b',"usage":null}\n\n',
    b"data: " + CHAT % b'{"usage":{},"choices":[]}' + b"}\n\n",  # empty ones further in
    b'data: {"choices":[],"x":{"usage":{}}}\n\n',
    b'data: [{"choices":[],"usage":{}}]\n\n',
    b'data: {"choices":[],"usage":{}\n\n',  # no JSON
    b'data: {"choices":[],"usage":{' + b"1" * 5000 + b"}}\n\n",
    b'data: {"choices":[],"usage":{},"x":' + b"[" * 20_000 + b"}\n\n",
    b'event: usage\ndata: {"choices":[],"usage":{}}\n\n',
    b'{"choices":[],"usage":{}}\n\n',
    b'data\n: "usage" "choices":[]\n\n',
    b'data: "' + b"x" * (LONGEST_EVENT + 100) + b'"\n\n',
]
DROP = [
    *(USAGE, COMPLETION_USAGE, USAGE.replace(b"data: ", b"data:"), USAGE.replace(b',"usage"', b',\ndata: "usage"')),
    b'data: {"usage" : {"prompt_tokens":12,"completion_tokens":7,"x":null}, "choices" : [ ]}\n\n',
]


def filtered(*pieces: bytes) -> tuple[bytes, UsageFilter]:
    usage = UsageFilter()
    return b"".join(map(usage.feed, pieces)) + usage.end(), usage


def cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({min(place, len(data)) for place in places} | {0, len(data)})
    return [data[begin:end] for begin, end in itertools.pairwise(ends)]


EVENTS = st.lists(st.sampled_from([(event, True) for event in PASS] + [(event, False) for event in DROP]), max_size=8)


@given(EVENTS, st.sampled_from([b"\n", b"\r\n", b"\r"]), st.lists(st.integers(0, 3000), max_size=12))
def test_exactly_the_event_of_the_usage_is_taken_out(
    events: list[tuple[bytes, bool]], line_end: bytes, places: list[int]
) -> None:
    data = b"".join(event for event, _ in events).replace(b"\n", line_end)
    expected = b"".join(event for event, passes in events if passes).replace(b"\n", line_end)
    got, usage = filtered(*cut(data, places))
    assert got == expected
    assert usage.found == any(not passes for _, passes in events)
    assert (usage.prompt_tokens, usage.completion_tokens) == ((12, 7) if usage.found else (0, 0))


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
def test_one_byte_at_a_time_gives_the_same(line_end: bytes) -> None:
    parts = [ROLE, TOKEN, b": ping\n\n", USAGE, NULL, COMPLETION_USAGE, DONE]
    data = b"".join(parts).replace(b"\n", line_end)
    kept = b"".join((ROLE, TOKEN, b": ping\n\n", NULL, DONE)).replace(b"\n", line_end)
    got, _ = filtered(*(data[at : at + 1] for at in range(len(data))))
    assert got == kept


@given(st.lists(st.binary(max_size=30) | st.sampled_from([b"\n", b"\r", b"\r\n", b'"usage"', USAGE[:80]]), max_size=12))
def test_any_bytes_that_are_not_that_event_pass_unchanged(pieces: list[bytes]) -> None:
    got, usage = filtered(*pieces)
    assert got == b"".join(pieces)
    assert not usage.found


def test_a_piece_of_whole_events_is_handed_on_as_it_is() -> None:
    usage = UsageFilter()
    for piece in (ROLE, TOKEN + TOKEN, DONE, ROLE.replace(b"\n", b"\r\n")):
        assert usage.feed(piece) is piece


def test_events_go_on_as_soon_as_they_are_whole() -> None:
    usage = UsageFilter()
    assert usage.feed(ROLE + TOKEN[:20]) == ROLE
    assert usage.feed(TOKEN[20:-1]) == b""
    assert usage.feed(TOKEN[-1:] + USAGE[:50]) == TOKEN
    assert usage.feed(USAGE[50:] + DONE) == DONE


def test_what_is_left_at_the_end_of_a_cut_stream_goes_on() -> None:
    usage = UsageFilter()
    assert usage.feed(TOKEN + USAGE[:-10]) == TOKEN
    assert usage.end() == USAGE[:-10]
    assert usage.end() == b""
    assert not usage.found


def test_a_comment_within_the_event_goes_on() -> None:
    assert filtered(b": ping\n" + USAGE + DONE)[0] == b": ping\n" + DONE


def test_an_event_too_long_to_wait_for_passes_as_it_comes_and_the_next_is_looked_at() -> None:
    usage = UsageFilter()
    long = b'data: {"x":"' + b"x" * LONGEST_EVENT
    assert usage.feed(long) == long
    assert usage.feed(b"more\r") == b"more"
    assert usage.feed(b'\n"usage"') == b'\r\n"usage"'
    assert usage.feed(b"\n") == b""
    assert usage.feed(b"\n" + USAGE + DONE) == b"\n\n" + DONE
    assert usage.found


def test_counts_that_are_none_are_zero() -> None:
    _, usage = filtered(b'data: {"choices":[],"usage":{"prompt_tokens":true,"completion_tokens":-1}}\n\n')
    assert (usage.found, usage.prompt_tokens, usage.completion_tokens) == (True, 0, 0)


def test_a_byte_at_a_time_is_held_without_being_copied_each_time() -> None:
    usage = UsageFilter()
    began = time.perf_counter()
    for _ in range(LONGEST_EVENT - 10):
        assert usage.feed(b"x") == b""
    assert time.perf_counter() - began < 3


@given(st.lists(st.binary(max_size=40), max_size=6))
def test_chunks_are_framed_so_that_they_can_be_read_again(pieces: list[bytes]) -> None:
    framed = b"".join(map(as_chunk, pieces))
    read, at = b"", 0
    while at < len(framed):
        size, _, rest = framed[at:].partition(b"\r\n")
        assert int(size, 16)
        read += rest[: int(size, 16)]
        at += len(size) + 2 + int(size, 16) + 2
    assert read == b"".join(pieces)


def test_the_samples_are_what_they_are_called() -> None:
    for event in (USAGE, COMPLETION_USAGE):
        assert json.loads(event[6:])["usage"]["completion_tokens"] == 7
