"""Heads of requests and responses: what is taken is taken by llhttp too, and says the same there."""

from __future__ import annotations

from contextlib import suppress

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_circus.config.models import Limits
from vllm_circus.proxy.cors import Cors
from vllm_circus.proxy.errors import BadMessage, BadResponse
from vllm_circus.proxy.fields import cut_length, find_field, read_again, without_length
from vllm_circus.proxy.head import RequestHead, engine_head, forwarded_lines
from vllm_circus.proxy.keys import Keys
from vllm_circus.proxy.reception import NOTHING, Reception
from vllm_circus.proxy.reply import client_head, framing_of, parse_response

LIMITS = Limits()
NAMES = st.sampled_from(
    [b"Host", b"X-A", b"Content-Length", b"Transfer-Encoding", b"Connection", b"Cookie", b"Accept", b"x_y", b"Expect"]
)
VALUES = st.sampled_from(
    [b"x", b"5", b"chunked", b"close", b"", b"a, b", b"100-continue", b"\xe9", b'"q"', b"keep-alive"]
)
NOISE = st.text("aA:1 \t\r\n\x00\x7f-_,;", max_size=5).map(str.encode)


@st.composite
def heads(draw: st.DrawFn) -> bytes:
    """Heads that are nearly right."""
    method = draw(st.sampled_from([b"GET", b"POST", b"OPTIONS", b"DELETE"]))
    target = draw(st.sampled_from([b"/", b"/v1/models?x=1", b"http://h/x", b"*", b"x", b"/a b", b"/%00"]))
    version = draw(st.sampled_from([b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"http/1.1", b"HTTP/1.1 "]))
    fields = [b"Host: h", *draw(st.lists(st.tuples(NAMES, NOISE | st.just(b":"), VALUES).map(b"".join), max_size=4))]
    spaced = draw(st.lists(st.tuples(NAMES, VALUES).map(lambda pair: pair[0] + b": " + pair[1]), max_size=4))
    end = draw(st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r"]))
    return b" ".join((method, target, version)) + b"\r\n" + end.join((*fields, *spaced)) + b"\r\n\r\n"


class Oracle:
    def __init__(self) -> None:
        self.url = b""
        self.fields: list[tuple[bytes, bytes]] = []
        self.keep_alive: bool | None = None

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name, value))


def parse_request(raw: bytes) -> tuple[RequestHead, int | None]:
    prepared, length = Reception(Keys(), Cors(()), LIMITS).read(raw)
    return prepared.head, length


def sent_for(raw: bytes) -> bytes:
    head, length = parse_request(raw)
    ours = forwarded_lines(b"1.2.3.4", secure=False)
    return engine_head(head, length, b"Host: engine:1\r\nAuthorization: Bearer k\r\n", ours, b"id")


@given(heads())
def test_a_request_that_is_taken_is_the_same_to_llhttp(raw: bytes) -> None:
    try:
        head, length = parse_request(raw)
    except BadMessage:
        return
    oracle = Oracle()
    parser = httptools.HttpRequestParser(oracle)
    parser.feed_data(raw)
    assert parser.get_method() == head.method
    assert parser.get_http_version() == f"1.{head.minor}"
    theirs = {name.lower(): value for name, value in oracle.fields}
    assert head.chunked == (b"transfer-encoding" in theirs)
    assert length == (int(theirs[b"content-length"]) if b"content-length" in theirs else None)
    for line in head.rest.split(b"\r\n")[:-1]:
        name, _, value = line.partition(b":")
        assert (name, value.strip(b" \t")) in oracle.fields


@given(heads())
def test_what_goes_to_the_engine_is_a_good_request_with_one_framing(raw: bytes) -> None:
    try:
        head, length = parse_request(raw)
    except BadMessage:
        return
    sent = sent_for(raw)
    oracle = Oracle()
    httptools.HttpRequestParser(oracle).feed_data(sent)
    names = [name.lower() for name, _ in oracle.fields]
    assert (b"Host", b"engine:1") in oracle.fields
    for name in (b"host", b"authorization", b"x-request-id", b"x-forwarded-for"):
        assert names.count(name) == 1
    assert names.count(b"content-length") + names.count(b"transfer-encoding") == int(head.chunked or length is not None)
    assert sent.count(b"\r\n\r\n") == 1


def test_the_lines_that_pass_keep_spelling_order_and_duplicates() -> None:
    raw = b"GET / HTTP/1.1\r\nHost: h\r\nX-b:  2 \r\nConnection: x-drop\r\nX-a:1\r\nX-Drop: 1\r\nX-b: 3\r\n\r\n"
    assert parse_request(raw)[0].rest == b"X-b:  2 \r\nX-a:1\r\nX-b: 3\r\n"


def test_a_connection_field_cannot_take_the_framing_away() -> None:
    raw = b"POST / HTTP/1.1\r\nHost: h\r\nConnection: content-length, host\r\nContent-Length: 3\r\n\r\n"
    sent = sent_for(raw)
    assert b"Content-Length: 3" in sent
    assert b"Host: engine:1" in sent


@pytest.mark.parametrize(
    ("lines", "minor", "keeps"),
    [
        (b"", 1, True),
        (b"", 0, False),
        (b"Connection: close\r\n", 1, False),
        (b"Connection: Keep-Alive\r\n", 0, True),
        (b"Connection: keep-alive, close\r\n", 1, False),
        (b"Connection: x\r\nConnection: CLOSE\r\n", 1, False),
    ],
)
def test_who_keeps_the_connection(lines: bytes, minor: int, keeps: bool) -> None:
    raw = b"GET / HTTP/1.%d\r\nHost: h\r\n%b\r\n" % (minor, lines)
    assert parse_request(raw)[0].keep_alive is keeps


def test_an_ipv6_host_is_one() -> None:
    parse_request(b"GET / HTTP/1.1\r\nHost: [::1]:8000\r\n\r\n")


def test_the_client_gets_the_engines_lines_and_ours() -> None:
    raw = b"HTTP/1.1 200 OK\r\nServer: u\r\nAccess-Control-Allow-Origin: *\r\nContent-Length: 2\r\nX-A: 1\r\n\r\n"
    made = client_head(*parse_response(raw), request_id=b"id", minor=1, keep_alive=True, extra=b"vary: Origin\r\n")
    assert made == (
        b"HTTP/1.1 200 OK\r\nServer: u\r\nX-A: 1\r\ncontent-length: 2\r\nx-request-id: id\r\nvary: Origin\r\n\r\n"
    )


def test_a_head_response_keeps_its_length_and_has_no_body() -> None:
    head, length = parse_response(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n")
    assert framing_of(head, length, b"HEAD") is None
    assert b"content-length: 20" in client_head(head, length, request_id=b"i", minor=1, keep_alive=True, extra=b"")


@given(st.binary(max_size=40) | st.text("HTP/1. 20OK\r\n:x", max_size=60).map(str.encode))
def test_no_bytes_break_the_reading_of_a_response(raw: bytes) -> None:
    with suppress(BadResponse):
        parse_response(raw + b"\r\n\r\n")


@given(heads())
def test_a_head_without_its_length_and_the_length_are_the_same_as_with_it(raw: bytes) -> None:
    before, after, length = cut_length(raw)
    if length is None:
        assert (before, after) == (raw, b"")
        assert without_length(before, after) == raw
    else:
        digits = raw[len(before) : len(raw) - len(after)]
        assert (before + digits + after, int(digits)) == (raw, length)
        assert len(raw) - len(without_length(before, after)) == len(b"\r\nContent-Length: " + digits)


#: A usual client's head, and what another one may differ in.
PLAIN = b"POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nContent-Length: %b\r\nContent-Type: application/json\r\n\r\n"
EDITS = st.tuples(
    st.integers(0, len(PLAIN) + 9), st.integers(0, 4), NOISE | st.sampled_from([b"\r\n\r\n", b"0", b"99"])
)


@given(st.integers(0, 10**20), st.lists(EDITS, max_size=2), st.integers(0, 10**6), st.binary(max_size=9))
def test_a_head_that_is_read_again_is_what_it_would_be_if_it_were_read_anew(
    length: int, edits: list[tuple[int, int, bytes]], first: int, body: bytes
) -> None:
    data = PLAIN % str(length).encode()
    for at, size, new in edits:
        data = data[:at] + new + data[at + size :]
    data += body
    reception = Reception(Keys(), Cors(()), LIMITS)
    usual, end, size = reception.read_plain(PLAIN % str(first).encode() + b"{", NOTHING)
    assert (end, size) == (len(PLAIN % str(first).encode()), first)
    prepared, end, size = reception.read_plain(data, usual)
    anew, *rest = Reception(Keys(), Cors(()), LIMITS).read_plain(data, NOTHING)
    assert [end, size] == rest
    assert not size or (prepared.head.start, prepared.head.rest) == (anew.head.start, anew.head.rest)


def test_a_head_is_read_again_but_for_its_length() -> None:
    before, after, _ = cut_length(PLAIN % b"5")
    assert read_again(PLAIN % b"123" + b"{}", before, after) == (len(PLAIN % b"123"), 123)
    for other in (b"", b" 5", b"+5", b"5 ", b"0x5", b"1" * 19, b"5\r\nContent-Length: 6"):
        assert read_again(PLAIN % other, before, after)[0] == -1
    for size in range(len(PLAIN % b"5")):
        assert read_again((PLAIN % b"5")[:size], before, after)[0] == -1
    raw = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
    assert read_again(raw, *cut_length(raw)[:2])[0] == -1, "a head without a length is not one of these"


#: The same with a header of 1024 bytes, where its length has one digit.
LARGE = PLAIN.replace(b"Host: h", b"Host: h\r\nX-Pad: " + b"x" * 955)
STRICT = Limits(max_header_bytes=1024)


def test_what_was_read_before_a_change_is_read_anew() -> None:
    usual, _, size = Reception(Keys(), Cors(()), LIMITS).read_plain(LARGE % b"55" + b"{", NOTHING)
    assert size == 55
    assert Reception(Keys(), Cors(()), STRICT).read_plain(LARGE % b"55" + b"{", usual) == (NOTHING, 0, 0)


def test_a_head_without_its_body_is_left_to_the_careful_reader() -> None:
    for raw in (PLAIN % b"5", b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"):
        assert Reception(Keys(), Cors(()), LIMITS).read_plain(raw, NOTHING) == (NOTHING, 0, 0)


def test_a_longer_number_may_be_one_too_many_for_a_head() -> None:
    reception = Reception(Keys(), Cors(()), STRICT)
    usual, _, size = reception.read_plain(LARGE % b"5" + b"{", NOTHING)
    assert (size, reception.read_plain(LARGE % b"6" + b"{", usual)[2]) == (5, 6)
    assert reception.read_plain(LARGE % b"55" + b"{", usual)[2] == 0
    with pytest.raises(BadMessage):
        reception.read(LARGE % b"55")


def test_a_field_is_found_by_its_name_alone() -> None:
    lines = b"X-A: x-b: 1\r\nx-B:2 \r\nX-B: 3\r\n"
    assert find_field(lines, b"x-b") == b"2"
    assert find_field(lines, b"x-c") is None
