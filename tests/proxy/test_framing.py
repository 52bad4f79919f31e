"""Finding the end of a body: exact, whatever the pieces, and no wider than the grammar."""

from __future__ import annotations

import itertools
from random import Random

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.proxy.scripted import chunk
from vllm_circus.proxy.framing import MORE, BadFraming, ByChunks, ByEnd, ByLength, Framing, count_events


def feed(framing: Framing, data: bytes, cuts: list[int]) -> tuple[int, bytes]:
    """Where the body ended in `data`, or MORE, and the body proper."""
    places = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    parts: list[bytes] = []
    for begin, end in itertools.pairwise(places):
        found = framing.feed(data[begin:end], 0, parts)
        if found != MORE:
            return begin + found, b"".join(parts)
    return MORE, b"".join(parts)


CHUNKS = st.lists(st.binary(min_size=1, max_size=40), max_size=6)
EXTENSIONS = st.sampled_from(["", ";a", ";a=b", ';a="b c"'])
TRAILERS = st.sampled_from([b"", b"X-A: 1\r\n", b"X-A: 1\r\nX-B:\r\n"])
CUTS = st.lists(st.integers(0, 300), max_size=10)


@given(CHUNKS, EXTENSIONS, TRAILERS, CUTS, st.binary(max_size=9))
def test_chunks_end_where_they_end(
    chunks: list[bytes], extension: str, trailers: bytes, cuts: list[int], after: bytes
) -> None:
    raw = b"".join(b"%x%b\r\n%b\r\n" % (len(piece), extension.encode(), piece) for piece in chunks)
    raw += b"0\r\n" + trailers + b"\r\n"
    framing = ByChunks()
    assert feed(framing, raw + after, cuts) == (len(raw), b"".join(chunks))
    assert framing.payload == sum(map(len, chunks))


@given(CHUNKS, CUTS)
def test_half_a_body_never_ends(chunks: list[bytes], cuts: list[int]) -> None:
    raw = b"".join(b"%X\r\n%b\r\n" % (len(piece), piece) for piece in chunks) + b"0\r\n\r\n"
    for size in range(len(raw)):
        assert feed(ByChunks(), raw[:size], cuts)[0] == MORE


class Oracle:
    """What llhttp makes of a chunked body."""

    def __init__(self) -> None:
        self.body = b""
        self.complete = False

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        self.complete = True


@given(st.text("0123456789abcAF;= \r\nxX-:\t", max_size=40).map(str.encode) | st.binary(max_size=30), CUTS)
def test_what_is_taken_is_taken_by_llhttp_too(noise: bytes, cuts: list[int]) -> None:
    try:
        end, body = feed(ByChunks(), noise, cuts)
    except BadFraming:
        return
    oracle = Oracle()
    parser = httptools.HttpRequestParser(oracle)
    parser.feed_data(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    parser.feed_data(noise if end == MORE else noise[:end])
    assert oracle.body == body
    assert oracle.complete == (end != MORE)


@pytest.mark.parametrize(
    "raw",
    [
        *(
            b"x\r\n",
            b"-1\r\n",
            b"+1\r\n",
            b"0x1\r\n",
            b"1 \r\n",
            b" 1\r\n",
            b"1_0\r\n",
            b"\r\n",
            b"1\n",
            b"1\rx",
            b";a\r\n",
        ),
        *(
            b"1\r\nab\r\n",
            b"2\r\na\r\n\r\n",
            b"1\r\na\n",
            b"1\r\na\rx",
            b"1;\x00\r\n",
            b"1;\xff\r\n",
            b"F" * 16 + b"\r\n",
        ),
        *(b"0\r\nX\r\n", b"0\r\n X: 1\r\n", b"0\r\nX : 1\r\n", b"0\r\nHost: x\r\n", b"0\r\nTransfer_Encoding: x\r\n"),
        *(b"1;" + b"a" * 2000, b"0\r\nX: " + b"a" * 9000, b"0\r\n" + b"X: 1\r\n" * 100),
    ],
)
def test_what_is_not_in_the_grammar_is_refused_at_once(raw: bytes) -> None:
    with pytest.raises(BadFraming):
        feed(ByChunks(), raw, [])
    with pytest.raises(BadFraming):
        feed(ByChunks(), raw, list(range(len(raw))))


@given(st.binary(max_size=50), st.integers(1, 60), CUTS)
def test_a_length_ends_where_it_says(data: bytes, length: int, cuts: list[int]) -> None:
    end, body = feed(ByLength(length), data, cuts)
    assert end == (length if length <= len(data) else MORE)
    assert body == data[:length]


def test_the_end_of_the_connection_is_the_end() -> None:
    framing = ByEnd()
    assert feed(framing, b"anything", [3]) == (MORE, b"anything")
    assert framing.ends_with_connection


def test_it_knows_when_something_of_ones_own_fits_in() -> None:
    framing = ByChunks()
    seen = []
    for piece in (b"3", b"\r\n", b"abc", b"\r\n", b"1\r\na\r\n", b"2\r\na"):
        framing.feed(piece)
        seen.append(framing.between)
    assert seen == [False, False, False, True, True, False]


@pytest.mark.parametrize(
    "raw", [b"0\r\nHTTP/1.1", b"0\r\nX-T: 1\rE", b"0\r\n X", b"0\r\nX :", b"0\r\n\rX", b"0\r\nX: \x00"]
)
def test_what_can_never_become_a_trailer_is_refused_at_once(raw: bytes) -> None:
    with pytest.raises(BadFraming):
        ByChunks().feed(raw)


EVENTS = st.lists(
    st.sampled_from([b"data: x\n\n", b"event: a\ndata: x\n\n", b"\n", b"a\n", b"\n\n", b"x" * 300, b": \n\n", b"\r\n"])
)


@given(st.lists(EVENTS.map(b"".join).filter(bool), max_size=4), st.randoms())
def test_events_are_counted_whatever_the_pieces(payloads: list[bytes], random: Random) -> None:
    framing, data = ByChunks(), b"".join(b"%x\r\n%b\r\n" % (len(payload), payload) for payload in payloads)
    cuts = sorted({0, len(data), *random.sample(range(len(data) + 1), min(2, len(data)))})
    for piece in (data[begin:end] for begin, end in itertools.pairwise(cuts)):
        framing.feed(piece)
        assert count_events(piece, framing.line) == piece.count(b"\n\n")


@pytest.mark.parametrize("payload", [b"", b"\n", b"\n\n", b"a\n", b"a\n\n", b"\na\n\n", b"\n\n\n"])
def test_events_of_short_chunks_are_counted(payload: bytes) -> None:
    piece = chunk(payload)
    for line in (0, len(b"%x\r\n" % len(payload))):
        assert count_events(piece, line) == piece.count(b"\n\n")


@pytest.mark.parametrize("size", [1, 2, 15, 16, 255, 256, 2040, 5000])
def test_a_whole_chunk_is_seen_to_be_one(size: int) -> None:
    framing = ByChunks()
    assert framing.feed(b"%x\r\n%b\r\n" % (size, b"x" * size)) == MORE
    assert (framing.payload, framing.between) == (size, True)
    assert framing.line == (len(b"%x\r\n" % size) if size <= 2040 else 0)
    assert framing.feed(b"0%x\r\n%b\r\n" % (size, b"x" * size)) == MORE, "another spelling is read as well"
    assert (framing.payload, framing.between, framing.line) == (2 * size, True, 0)
