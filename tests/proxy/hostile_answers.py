"""Answers against the rules, as literal bytes by what is wrong with them."""

from __future__ import annotations

import itertools

from tests.proxy.scripted import SSE_HEAD, event, ok

HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
SECOND = ok(b"poison")
_REST = b"\r\nContent-Length: 2\r\n\r\n{}"

_LENGTHS = (
    b"+2", b"-2", b"0x2", b"2, 2", b"2,3", b"2 2", b"", b"2;", b'"2"', b"9" * 19, b"2\x00", b"\x0b2", b"1e1", b"2_0",
)  # fmt: skip
_CODINGS = (
    b"chunked, chunked", b"identity", b"chunked, gzip", b"x", b"", b"\x0bchunked", b"chunked;q=1", b",chunked",
)  # fmt: skip
_FRAMINGS = (
    b"Content-Length: 2", b"Content-Length: 5", b"Transfer-Encoding: chunked", b"transfer-encoding: x",
    b"content-length: x",
)  # fmt: skip
_LINES = (b"Content-Length : 2", b" Content-Length: 2", b"Content-Length", b": 2", b"Content Length: 2", b"X-A: \r")
_STATUSES = (b"000", b"099", b"600", b"999", b"20", b"2000", b"-20", b"2x0", b"+200", b"\xb200", b"")
_VERSIONS = (
    b"HTTP/2.0", b"HTTP/1.2", b"HTTP/0.9", b"http/1.1", b"HTTP/11", b"HTTP/1", b"HTTPS/1.1", b"ICY", b" HTTP/1.1", b"",
)  # fmt: skip
_GARBAGE = (b"garbage", b"\x00", b"\r\n", b"\n", b"<html>\r\n\r\n", b"2\r\n{}\r\n0\r\n\r\n", b"\xff" * 64, b"{}")


def _heads() -> dict[str, bytes]:
    """One thing wrong at a time, in every spelling."""
    return {
        **{f"Content-Length: {it!r}": HEAD + b"Content-Length: " + it + b"\r\n\r\n{}" for it in _LENGTHS},
        **{
            f"Transfer-Encoding: {it!r}": HEAD + b"Transfer-Encoding: " + it + b"\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
            for it in _CODINGS
        },
        **{
            f"{one!r} and {other!r}": HEAD + one + b"\r\n" + other + b"\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
            for one, other in itertools.permutations(_FRAMINGS, 2)
        },
        **{f"the line {it!r}": HEAD + it + _REST for it in _LINES},
        **{f"the status {it!r}": b"HTTP/1.1 " + it + b" OK" + _REST for it in _STATUSES},
        **{f"the version {it!r}": it + b" 200 OK" + _REST for it in _VERSIONS},
        **{f"{it[:20]!r} before the status line": it + ok(b"{}") for it in _GARBAGE},
    }


#: Wrong in their head.
HEADS = _heads() | {
    "HTTP/0.9": b"<html>everything is fine</html>\r\n\r\n",
    "the preface of HTTP/2": b"\x00\x00\x12\x04\x00\x00\x00\x00\x00" + b"\x00" * 18 + b"\r\n\r\n",
    "a request for an answer": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "a TLS alert": b"\x15\x03\x01\x00\x02\x02\x46\r\n\r\n",
    "CR for line ends": b"HTTP/1.1 200 OK\rContent-Length: 2\r\r{}\r\n\r\n",
    "a NUL in the reason": b"HTTP/1.1 200 O\x00K\r\nContent-Length: 2\r\n\r\n{}",
    "a NUL in a name": HEAD + b"X\x00A: 1\r\nContent-Length: 2\r\n\r\n{}",
    "a line end in a value": HEAD + b"X-A: a\rSet-Cookie: b\r\nContent-Length: 2\r\n\r\n{}",
    "a folded length": HEAD + b"Content-Length:\r\n 2\r\n\r\n{}",
    "an endless line": HEAD + b"X-A: " + b"a" * 70_000,
    "an endless status line": b"HTTP/1.1 200 " + b"a" * 70_000,
    "seventeen interim answers": b"HTTP/1.1 103 Early Hints\r\n\r\n" * 17 + ok(b"{}"),
    "an interim answer that is malformed": b"HTTP/1.1 103 Early Hints\r\nX A: 1\r\n\r\n" + ok(b"{}"),
    "a switch to HTTP/2": b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
}
#: Bodies of chunks that are wrong.
CHUNKS = {
    "a size with 0x": b"0x2\r\n{}\r\n0\r\n\r\n",
    "a size with a sign": b"+2\r\n{}\r\n0\r\n\r\n",
    "a size below zero": b"-2\r\n{}\r\n0\r\n\r\n",
    "a size with a blank": b"2 \r\n{}\r\n0\r\n\r\n",
    "a size that overflows": b"10000000000000002\r\n{}\r\n0\r\n\r\n",
    "no size": b"\r\n{}\r\n0\r\n\r\n",
    "an LF": b"2\n{}\n0\n\n",
    "a NUL": b"2\x00\r\n{}\r\n0\r\n\r\n",
    "an extension with an LF": b"2;a\nb\r\n{}\r\n0\r\n\r\n",
    "a trailer with a length": b"2\r\n{}\r\n0\r\nContent-Length: 5\r\n\r\n",
    "a trailer that is no field": b"2\r\n{}\r\n0\r\nhello\r\n\r\n",
    "a chunk that is too long": b"2\r\n{}{}\r\n0\r\n\r\n",
    "a chunk that is too short": b"4\r\n{}\r\n0\r\n\r\n\r\n",
    "two CRLFs behind a chunk": b"2\r\n{}\r\n\r\n0\r\n\r\n",
}
#: In two pieces: less than they promise.
LYING = {
    "a length that is too long": (HEAD + b"Content-Length: 9\r\n\r\nabc", b"def"),
    "no end of chunks": (CHUNKED + b"3\r\nabc\r\n", b"3\r\ndef\r\n"),
    "half an end of chunks": (CHUNKED + b"3\r\nabc\r\n", b"0\r\n"),
    "half a chunk": (CHUNKED + b"3\r\nabc\r\n", b"9\r\ndef"),
    "half a trailer": (CHUNKED + b"3\r\nabc\r\n", b"0\r\nX-A: 1\r\n"),
    "half an event": (SSE_HEAD + event(0), event(1)[:-9]),
    "events without their end": (SSE_HEAD + event(0), event(1)),
}
#: In one or two pieces: `abc`, and something behind it.
TOO_MUCH = {
    "two answers at once": (ok(b"abc") + SECOND,),
    "two answers, one after the other": (ok(b"abc"), SECOND),
    "a length that is too short": (HEAD + b"Content-Length: 3\r\n\r\nabcpoison",),
    "a length that is too short, later": (HEAD + b"Content-Length: 3\r\n\r\nab", b"cpoison"),
    "an answer behind the last chunk": (CHUNKED + b"3\r\nabc\r\n0\r\n\r\n" + SECOND,),
    "an answer behind the last chunk, later": (CHUNKED + b"3\r\nabc\r\n0\r\n\r\n", SECOND),
    "an answer behind a trailer": (CHUNKED + b"3\r\nabc\r\n0\r\nX-A: 1\r\n\r\n", SECOND),
    "a single CRLF behind the answer": (ok(b"abc"), b"\r\n"),
    "an interim answer behind the answer": (ok(b"abc"), b"HTTP/1.1 100 Continue\r\n\r\n"),
}
#: A body where there is none.
BODILESS = {
    "204 with a body": b"HTTP/1.1 204 No Content\r\n\r\npoison",
    "204 with a length": b"HTTP/1.1 204 No Content\r\nContent-Length: 6\r\n\r\npoison",
    "204 with chunks": b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n6\r\npoison\r\n0\r\n\r\n",
    "304 with a length": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 6\r\n\r\npoison",
    "304 with an answer": b"HTTP/1.1 304 Not Modified\r\n\r\n" + SECOND,
    "an empty one with a body": HEAD + b"Content-Length: 0\r\n\r\npoison",
}
#: The answer `early`, to a request that is not whole.
EARLY = {
    "a whole answer": ok(b"early"),
    "an answer of chunks": CHUNKED + b"5\r\nearly\r\n0\r\n\r\n",
    "two whole answers": ok(b"early") + SECOND,
    "a length that is too short": HEAD + b"Content-Length: 5\r\n\r\nearlypoison",
    "an answer of chunks, and another": CHUNKED + b"5\r\nearly\r\n0\r\n\r\n" + SECOND,
    "an interim answer, then a whole one": b"HTTP/1.1 103 Early Hints\r\n\r\n" + ok(b"early"),
}
