"""Requests that try to hide another one: every spelling of what says where a request ends and where it goes.

Rules: a case is the bytes of one request, and what the relay owes for them. Whoever sends a case puts its number in
the place of `MARK`, and sends another request right behind it. The lists name spellings one by one and the groups
combine them, so that a failing case says which spelling it is.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum

from tests.proxy.smuggling_spellings import (
    BAD_CODINGS,
    BAD_LENGTHS,
    BAD_SIZES,
    BAD_TRAILERS,
    BAD_VERSIONS,
    GOOD_CODINGS,
    GOOD_LENGTHS,
    GOOD_SIZES,
    LINE_ENDS,
    LOCAL_TARGETS,
    REFUSED_TARGETS,
)

#: Stands for the number of the case, of the same length: lengths stay right.
MARK = b"@@@@@@"
#: In front of the number of what is hidden in a case.
HIDDEN = b"hidden-"


class Owed(Enum):
    """What the relay owes for a case."""

    REFUSED = "one answer of the proxy's own, and the end of the connection"
    LOCAL = "an answer of the proxy's own"
    TAKEN = "one request at the engine, and its answer"


@dataclass(frozen=True)
class Case:
    """One request. `body` is what the engine has to get of a `TAKEN` one, chunk framing taken off."""

    name: str
    raw: bytes
    owed: Owed
    body: bytes = b""


HIDDEN_REQUEST = b"GET /version?model=alpha HTTP/1.1\r\nHost: x\r\nX-Case: " + HIDDEN + MARK + b"\r\n\r\n"
_BODY = b'{"model":"alpha","messages":"\r\n\r\n' + HIDDEN_REQUEST + b'"}'
_LENGTH = b"%d" % len(_BODY)
_CHUNKS = b"%x\r\n%b\r\n0\r\n\r\n" % (len(_BODY), _BODY)

_GOOD_CL = b"Content-Length: " + _LENGTH
_GOOD_TE = b"Transfer-Encoding: chunked"


def _request(
    *lines: bytes, body: bytes = _BODY, target: bytes = b"/v1/completions", version: bytes = b"HTTP/1.1"
) -> bytes:
    head = (b"POST " + target + b" " + version, b"Host: x", b"X-Case: " + MARK, *lines)
    return b"\r\n".join(head) + b"\r\n\r\n" + body


def all_cases() -> list[Case]:
    """Every case once, each with a name of its own."""
    groups = (_lengths(), _codings(), _both(), _line_ends(), _versions(), _chunk_sizes(), _chunk_ends(), _trailers())
    cases = itertools.chain(*groups, _connections(), _targets(), _hosts())
    return list({case.raw: case for case in cases}.values())


def _names(good: bytes) -> tuple[list[bytes], list[bytes]]:
    """Spellings of a field's name that are that name, and those that are none."""
    lower = good.lower()
    mixed = bytes(byte ^ 32 if at % 2 and byte != 45 else byte for at, byte in enumerate(lower))
    bad = [good + after for after in (b" ", b"\t", b"\x00", b"\x0b", b"\r", b"\xa0", b"\x7f", b"\\", b"(", b'"')]
    bad += [before + good for before in (b" ", b"\t", b"\x00", b"\x0b", b"\xa0", b"\xef\xbb\xbf", b"\r", b":")]
    bad += [good.replace(b"-", between) for between in (b"_", b" ", b"\x00-", b"\xe2\x80\x91")]
    return [good, lower, good.upper(), mixed], bad


def _lengths() -> Iterator[Case]:
    names, bad_names = _names(b"Content-Length")
    good = [value.replace(b"%b", _LENGTH) for value in GOOD_LENGTHS]
    for name, value in itertools.product(names, good):
        line = name + b":" + value
        yield Case(f"{line!r}", _request(line), Owed.TAKEN, _BODY)
        yield from _refused_beside("again", line, (_GOOD_CL, b"Content-Length: 0", _GOOD_TE))
    for name, value in itertools.product(names, BAD_LENGTHS):
        yield from _refused_beside(
            "alone, beside", name + b":" + value.replace(b"%b", _LENGTH), (b"", _GOOD_CL, _GOOD_TE)
        )
    for name in bad_names:
        yield from _refused_beside("misnamed, beside", name + b": " + _LENGTH, (b"", _GOOD_CL, _GOOD_TE))


def _codings() -> Iterator[Case]:
    names, bad_names = _names(b"Transfer-Encoding")
    for name, value in itertools.product(names, GOOD_CODINGS):
        line = name + b":" + value
        yield Case(f"{line!r}", _request(line, body=_CHUNKS), Owed.TAKEN, _BODY)
        yield Case(f"{line!r} in HTTP/1.0", _request(line, body=_CHUNKS, version=b"HTTP/1.0"), Owed.REFUSED)
        yield from _refused_beside("again", line, (_GOOD_TE, _GOOD_CL), body=_CHUNKS)
    for name, value in itertools.product(names[:2], BAD_CODINGS):
        yield from _refused_beside("alone, beside", name + b":" + value, (b"", _GOOD_CL, _GOOD_TE), body=_CHUNKS)
    for name in bad_names:
        yield from _refused_beside("misnamed, beside", name + b": chunked", (b"", _GOOD_CL, _GOOD_TE), body=_CHUNKS)


def _refused_beside(what: str, line: bytes, others: Iterable[bytes], *, body: bytes = _BODY) -> Iterator[Case]:
    """A line before, behind and far behind others; an empty other one stands for none."""
    for other in others:
        if not other:
            yield Case(f"{what} nothing: {line!r}", _request(line, body=body), Owed.REFUSED)
            continue
        yield Case(f"{what} a later {other!r}: {line!r}", _request(line, other, body=body), Owed.REFUSED)
        yield Case(f"{what} an earlier {other!r}: {line!r}", _request(other, b"X-A: 1", line, body=body), Owed.REFUSED)


def _both() -> Iterator[Case]:
    """Both framings at once, whatever the body follows, and lengths that lie about it."""
    bodies = {"none": b"", "by length": _BODY, "by chunks": _CHUNKS, "an end": b"0\r\n\r\n"}
    lengths = (b"0", b"3", _LENGTH, b"%d" % len(_CHUNKS), b"6")
    codings = (b"chunked", b"Chunked", b"identity", b"gzip, chunked", b"\x0bchunked", b"x")
    for (what, body), length, coding in itertools.product(bodies.items(), lengths, codings):
        lines = (b"Content-Length: " + length, b"Transfer-Encoding: " + coding)
        for order, version in itertools.product((1, -1), (b"HTTP/1.1", b"HTTP/1.0")):
            name = f"{what}, {lines[::order]!r}, {version.decode()}"
            yield Case(name, _request(*lines[::order], body=body, version=version), Owed.REFUSED)


def _line_ends() -> Iterator[Case]:
    lines = (b"POST /v1/completions HTTP/1.1", b"Host: x", b"X-Case: " + MARK, b"X-A: 1")
    for framing, body in ((_GOOD_CL, _BODY), (_GOOD_TE, _CHUNKS)):
        for end, at in itertools.product(LINE_ENDS, range(len(lines) + 1)):
            head = [line + b"\r\n" for line in (*lines, framing)]
            head[at] = head[at].removesuffix(b"\r\n") + end
            yield Case(
                f"line {at} of a request with {framing[:9]!r} ends with {end!r}",
                b"".join(head) + b"\r\n" + body,
                Owed.REFUSED,
            )
    for inside in (
        b"\x00",
        b"\x07",
        b"\x08",
        b"\x0b",
        b"\x0c",
        b"\x1b",
        b"\x7f",
        b"\r",
        b"\n",
        b"\rContent-Length: 0",
        b"\nA: b",
    ):
        yield Case(f"{inside!r} in a value", _request(b"X-A: a" + inside + b"b", _GOOD_CL), Owed.REFUSED)
        yield Case(f"{inside!r} in a name", _request(b"X" + inside + b"A: b", _GOOD_CL), Owed.REFUSED)


def _versions() -> Iterator[Case]:
    for version in BAD_VERSIONS:
        yield Case(f"{version!r} with a length", _request(_GOOD_CL, version=version), Owed.REFUSED)
        yield Case(f"{version!r} with chunks", _request(_GOOD_TE, body=_CHUNKS, version=version), Owed.REFUSED)
    kept = _request(_GOOD_CL, b"Connection: keep-alive", version=b"HTTP/1.0")
    yield Case("HTTP/1.0 with a length", kept, Owed.TAKEN, _BODY)


def _chunked(body: bytes, *lines: bytes) -> bytes:
    return _request(_GOOD_TE, *lines, body=body)


def _chunk_sizes() -> Iterator[Case]:
    first, rest = _BODY[:16], _BODY[16:]
    sizes = (b"10", b"%x" % len(rest), b"0")
    for at, (spellings, owed) in itertools.product(range(3), ((BAD_SIZES, Owed.REFUSED), (GOOD_SIZES, Owed.TAKEN))):
        for spelling in spellings:
            used = [spelling.replace(b"%s", size) if at == place else size for place, size in enumerate(sizes)]
            body = b"%b\r\n%b\r\n%b\r\n%b\r\n%b\r\n\r\n" % (used[0], first, used[1], rest, used[2])
            yield Case(f"chunk {at} with the size {used[at]!r}", _chunked(body), owed, _BODY)


def _chunk_ends() -> Iterator[Case]:
    size = b"%x\r\n" % len(_BODY)
    for end in (
        b"",
        b"\n",
        b"\r",
        b"\r\r\n",
        b"\n\r\n",
        b" \r\n",
        b"x\r\n",
        b"\x00\r\n",
        b"\r\n\r\n",
        b"\r\n\n",
        b"\n\n",
        b"xx",
    ):
        yield Case(f"a chunk that ends with {end!r}", _chunked(size + _BODY + end + b"0\r\n\r\n"), Owed.REFUSED)
    for end in (
        b"\n",
        b"\r\n\n",
        b"\n\r\n",
        b"\r\n\rx",
        b"\r\r\n\r\n",
        b"\r\nx\r\n\r\n",
        b"\r\n: x\r\n\r\n",
        b"\r\n \r\n\r\n",
    ):
        yield Case(f"a body that ends with 0{end!r}", _chunked(size + _BODY + b"\r\n0" + end), Owed.REFUSED)
    for wrong in (-20, -2, -1, 1, 2, 3):
        yield Case(
            f"a chunk size off by {wrong}",
            _chunked(b"%x\r\n%b\r\n0\r\n\r\n" % (len(_BODY) + wrong, _BODY)),
            Owed.REFUSED,
        )
    every = b"".join(b"1\r\n%c\r\n" % byte for byte in _BODY)
    yield Case("a chunk for each byte", _chunked(every + b"0\r\n\r\n"), Owed.TAKEN, _BODY)


def _trailers() -> Iterator[Case]:
    size = b"%x\r\n%b\r\n0\r\n" % (len(_BODY), _BODY)
    for field in BAD_TRAILERS:
        for spelled in {field, field.lower(), field.upper()}:
            yield Case(f"the trailer {spelled!r}", _chunked(size + spelled + b"\r\n\r\n"), Owed.REFUSED)
            after = size + b"X-B: 1\r\n" + spelled + b"\r\n\r\n"
            yield Case(f"the second trailer {spelled!r}", _chunked(after), Owed.REFUSED)
    for field in (b"X-A: 1", b"x-checksum:abc", b"X-A:", b"X-A: 1\r\nX-A: 2", b"X-A: \xe9"):
        yield Case(f"the trailer {field!r}", _chunked(size + field + b"\r\n\r\n"), Owed.TAKEN, _BODY)


def _connections() -> Iterator[Case]:
    """A Connection field may name any other field, but not take away what frames the message."""
    for name in (b"Content-Length", b"content-length", b"Transfer-Encoding", b"Host", b"X-Case-Not", b"Connection"):
        line = b"Connection: keep-alive, " + name
        yield Case(f"{line!r} with a length", _request(line, _GOOD_CL), Owed.TAKEN, _BODY)
        yield Case(f"{line!r} with chunks", _request(line, _GOOD_TE, body=_CHUNKS), Owed.TAKEN, _BODY)
    for value in (b"", b" 100-continu", b" 100-continue, x", b" 101", b" 100-continue;q=1", b" \xa0100-continue"):
        yield Case(f"Expect:{value!r}", _request(b"Expect:" + value, _GOOD_CL), Owed.REFUSED)
    for line in (b"Upgrade: h2c", b"Upgrade: websocket", b"HTTP2-Settings: AAMAAABkAAQAAP__"):
        names = b"Connection: Upgrade, " + line.partition(b":")[0]
        yield Case(f"{line!r} is not followed", _request(names, line, _GOOD_CL), Owed.TAKEN, _BODY)


_JSON_PATHS = (
    b"/v1/chat/completions /v1/completions /v1/responses /tokenize /detokenize /invocations /pooling /v1/embeddings"
    b" /v2/embed /score /v1/score /rerank /v1/rerank /v2/rerank /classify /v1/messages /v1/messages/count_tokens"
).split()
_GET_PATHS = b"/version /load /v1/models /metrics /proxy/status /health /ping /v1/realtime /v1/responses/resp_1".split()


def _spell(spelling: bytes, path: bytes) -> bytes:
    folder, _, name = path.rpartition(b"/")
    return spelling.replace(b"%s", path).replace(b"%d", folder).replace(b"%n", name).replace(b"%%", b"%")


def _targets() -> Iterator[Case]:
    for path in (*_JSON_PATHS, *_GET_PATHS):
        spellings = [(_spell(each, path), Owed.LOCAL) for each in LOCAL_TARGETS]
        spellings += [(_spell(each, path), Owed.REFUSED) for each in REFUSED_TARGETS]
        spellings += [
            (path.upper(), Owed.LOCAL),
            (path.title(), Owed.LOCAL),
            (path[:-1] + b"%%%x" % path[-1], Owed.LOCAL),
        ]
        for target, owed in dict(spellings).items():
            if path in _JSON_PATHS:
                yield Case(f"POST {target!r}", _request(_GOOD_CL, target=target), owed)
            else:
                yield Case(f"GET {target!r}", b"GET" + _request(target=target + b"?model=alpha", body=b"")[4:], owed)
    for path in _JSON_PATHS:
        for before, after in (
            (b"http://x", b""),
            (b"HTTP://X:80", b""),
            (b"https://[::1]", b"?a"),
            (b"", b"?x=/../;\\%2e//"),
        ):
            yield Case(
                f"POST {before + path + after!r}", _request(_GOOD_CL, target=before + path + after), Owed.TAKEN, _BODY
            )


def _hosts() -> Iterator[Case]:
    for host in (
        b"x y",
        b"x/y",
        b"x,y",
        b"x\\y",
        b"x@y",
        b"x:y",
        b"x:999999",
        b"[x]",
        b"[::1",
        b"x#y",
        b"x?y",
        b"\xe9",
        b'"x"',
    ):
        raw = _request(_GOOD_CL).replace(b"Host: x", b"Host: " + host, 1)
        owed = Owed.TAKEN if host == b"x,y" else Owed.REFUSED  # a comma may stand in a name: RFC 3986, section 3.2.2
        yield Case(f"Host: {host!r}", raw, owed, _BODY)
    for lines in (b"Host: x\r\nHost: x", b"Host: x\r\nhost: y", b"Host : x", b"X: y", b"Host: x\r\nX-A: 1\r\nHOST:"):
        yield Case(f"{lines!r} for a Host", _request(_GOOD_CL).replace(b"Host: x", lines, 1), Owed.REFUSED)
