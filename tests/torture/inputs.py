"""Rows about what clients send: too large, too deep, not what it says it is, and paths that are nobody's business."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from urllib.parse import quote

from tests.torture.load import Probe
from tests.torture.stage import MIB, Effort, Result, Row, stage

_HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
_LENGTH = re.compile(rb"(?i)\r\ncontent-length: (\d+)\r\n")
_PIECE = 1 << 16


def _body(body: bytes) -> bytes:
    return _HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body


def _inputs(effort: Effort) -> Iterator[tuple[str, bytes, bytes, int]]:
    """Name, beginning, what is repeated behind it, and how often."""
    many = effort.of(1600, 32)  # pieces of 64 KiB: 100 MiB
    filler = b"a" * _PIECE
    yield "endless request line", b"GET /", filler, many
    yield "endless header line", b"GET / HTTP/1.1\r\nHost: x\r\nX-A: ", filler, many
    yield "endless header", b"GET / HTTP/1.1\r\nHost: x\r\n", b"X-A: b\r\n" * 8192, many
    yield "a thousand fields", b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X-A: b\r\n" * 1000 + b"\r\n", b"", 0
    yield "a body of 1 TB", _HEAD + b"Content-Length: 1099511627776\r\n\r\n", filler, many
    yield (
        "chunks beyond the limit",
        _HEAD + b"Transfer-Encoding: chunked\r\n\r\n",
        b"10000\r\n%b\r\n" % (b" " * _PIECE),
        many,
    )
    yield "chunks of one byte", _HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n" * 10_000, many
    yield "chunk extensions", _HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1;%b\r\n \r\n" % (b"a" * 1000), many * 50
    yield "an endless chunk extension", _HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;", filler, many
    yield "endless trailers", _HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X-A: b\r\n" * 8192, many
    depth = 100_000
    yield "deep arrays", _body(b'{"x":' + b"[" * depth + b"]" * depth + b',"model":"alpha"}'), b"", 0
    yield "deep objects", _body(b'{"x":' + b'{"a":' * depth + b"1" + b"}" * depth + b',"model":"alpha"}'), b"", 0
    yield "deep and never closed", _body(b'{"x":' + b"[{" * depth), b"", 0
    yield "a key of 1 MiB", _body(b'{"%b":1,"model":"alpha"}' % (b"k" * MIB)), b"", 0
    yield "a model's name of 1 MiB", _body(b'{"model":"%b"}' % (b"m" * MIB)), b"", 0
    yield "a number of 1 MiB", _body(b'{"x":%b,"model":5}' % (b"9" * MIB)), b"", 0
    yield "blanks of 1 MiB", _body(b" " * MIB + b'{"model":"alpha"}'), b"", 0
    yield "a form of 10,000 parts", _form(10_000), b"", 0
    yield "a form without an end", _form(1)[:-10] + b" " * 10, b"", 0
    for body in _BODIES:
        yield f"{body!r}", _body(body), b"", 0


_BODIES = (
    *(b'{"model":NaN}', b'{"model":Infinity}', b'{"model":-Infinity}', b'{"model":1e999}', b'{"model":true}', b""),
    *(b'{"model":["alpha"]}', b'{"model":{"a":"alpha"}}', b'{"model":"alpha","model":"beta"}', b"NaN", b"null"),
    *(b'{"model":"alpha","mod\\u0065l":"beta"}', b'{"model":"\xff\xfe"}', b'{"model":"\xc3\x28"}', b'"model"'),
    *(b'{"model":"\xed\xa0\x80"}', b'{"mod\xffel":"alpha"', b'{"model":"\\ud800"}', b'{"model":"alpha\\x"}', b"{"),
    *('{"model":"alpha"}'.encode("utf-16"), '{"model":"alpha"}'.encode("utf-32"), b'\x00{"model":"alpha"}', b"[]"),
    *(b"{'model':'alpha'}", b"{model:alpha}", b'{"model":"alpha"}{"model":"beta"}', b'{"model" "alpha"}', b"\x1f\x8b"),
    *(b'{"model":"\x1b[31malpha"}', b'{"model":"<script>alert(1)</script>"}', b'{"model":"alpha\\r\\nX-A: b"}'),
)  # fmt: skip


def _form(parts: int) -> bytes:
    part = b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n1\r\n'
    body = part * parts + b"--b--\r\n"
    head = b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


async def _oversized(effort: Effort) -> Result:
    faults: list[str] = []
    async with stage(2) as made, Probe(made.port) as probe:
        before = most = made.rss()
        tried = 0
        for name, first, again, times in _inputs(effort):
            raw = await _send(made.port, first, again, times)
            tried += 1
            most = max(most, made.rss())
            if fault := _fault_of(raw):
                faults.append(f"{name[:60]}: {fault}")
        targets = [await engine.seen() for engine in made.engines]
        wrong = made.healthy()
        p99 = probe.p99()
    foreign = [line for seen in targets for line in seen["odd"]]
    figure = f"{tried - len(faults)} of {tried} refused well; the worker grew by {(most - before) / MIB:.0f} MiB"
    figure += f"; probe p99 {p99:.0f} ms" + "".join(f"; {fault}" for fault in faults[:5])
    return Result(figure + wrong, not faults and not wrong and not foreign and most - before <= 96 * MIB)


async def _send(port: int, first: bytes, again: bytes, times: int) -> bytes:
    """What comes while it is sent, up to the end of the answer or of the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(first)
    raw = b""
    try:
        async with asyncio.timeout(20):
            sending = asyncio.create_task(_repeat(writer, again, times))
            async for data in _pieces(reader):
                raw += data
                length = _LENGTH.search(raw)
                if length and len(raw) >= raw.find(b"\r\n\r\n") + 4 + int(length[1]):
                    break
            sending.cancel()
    except (OSError, TimeoutError):
        return raw
    finally:
        writer.transport.abort()
    return raw


async def _pieces(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while data := await reader.read(65536):
        yield data


async def _repeat(writer: asyncio.StreamWriter, again: bytes, times: int) -> None:
    with suppress(OSError):  # the proxy has heard enough
        for _ in range(times):
            writer.write(again)
            await writer.drain()


def _fault_of(raw: bytes) -> str:
    """Empty for a 4xx in OpenAI's shape."""
    status = _STATUS.match(raw)
    if status is None or not 400 <= int(status[1]) < 500:
        return f"answered {raw[:40]!r}"
    error = json.loads(raw.partition(b"\r\n\r\n")[2])["error"]
    return "" if set(error) == {"message", "type", "param", "code"} else f"answered {error}"


_ROUTES = (
    *("sleep", "wake_up", "is_sleeping", "pause", "resume", "is_paused", "abort_requests", "collective_rpc", "torture"),
    *("load_lora_adapter", "v1/load_lora_adapter", "v1/unload_lora_adapter", "reset_prefix_cache", "reset_mm_cache"),
    *("reset_encoder_cache", "server_info", "scale_elastic_ep", "is_scaling_elastic_ep", "start_profile", "docs"),
    *("stop_profile", "update_weights", "init_weight_transfer_engine", "get_world_size", "openapi.json", "redoc"),
    *("inference/v1/generate", "metrics/", "health/", "version/"),
)


def _spellings(route: str) -> Iterator[str]:
    """Ways to write a path so that somebody might take it for the route."""
    first = f"%{ord(route[0]):02x}{route[1:]}"
    yield from (f"/{route}", f"//{route}", f"///{route}", f"/./{route}", f"/x/../{route}", f"/{route}/", f"/{route}//")
    yield from (f"/{route};", f"/{route};x=1", f"/;/{route}", f"/{route}?x=1", f"/{route}?model=alpha", f"/{route}%20")
    yield from (
        f"/{first}",
        f"/{first.upper()}",
        f"/{route.upper()}",
        f"/{route.title()}",
        f"/{route}%00",
        f"/{route}%0a",
    )
    yield from (
        f"/%2f{route}",
        f"/%2e/{route}",
        f"/%2e%2e/{route}",
        f"/%252e%252e/{route}",
        f"/..;/{route}",
        f"/{route}.json",
    )
    yield from (f"/v1/%2e%2e/{route}", f"/v1/../{route}", f"/v1/completions/../../{route}", f"/v1/models/../../{route}")
    yield from (
        f"/v1/responses/..%2f..%2f{route}",
        f"/v1/responses/x/../../../{route}",
        f"/v1/completions;/../../{route}",
    )
    yield from (
        f"http://x/{route}",
        f"HTTP://127.0.0.1:8001/{route}",
        f"https://[::1]//{route}",
        f"/\\{route}",
        f"\\{route}",
    )
    yield from (
        f"/{quote(route, safe='').replace('_', '%5f')}",
        f"/{route}#x",
        f"/v1/../../../../{route}",
        f"/{route}\t",
    )


async def _dangerous(effort: Effort) -> Result:
    cases = [
        (method, target)
        for route in _ROUTES[:: effort.of(1, 9)]
        for method, target in itertools.product(("GET", "POST", "DELETE"), dict.fromkeys(_spellings(route)))
    ]
    async with stage() as made:
        before = (await made.engines[0].seen())["requests"]
        waiting = iter(cases)
        faults: list[str] = []

        async def work() -> None:
            for method, target in waiting:
                body = b'{"model":"alpha"}'
                head = f"{method} {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
                status = _STATUS.match(await _send(made.port, head + body, b"", 0))
                # a few spellings end in a control page, which has nothing by that name; malformed ones are 400
                if status is None or status[1] not in {b"404", b"400", b"405"}:
                    faults.append(f"{method} {target}: {status and status[1]!r}")

        await asyncio.gather(*(work() for _ in range(16)))
        seen = await made.engines[0].seen()
        wrong = made.healthy()
    came = seen["requests"] - before
    figure = f"{len(cases) - len(faults)} of {len(cases)} spellings refused, {came} came to the engine"
    return Result(figure + "".join(f"; {fault}" for fault in faults[:5]) + wrong, not faults and not came and not wrong)


ROWS = (
    Row("inputs", "oversized, deep, doubled, not JSON, not UTF-8", "4xx in OpenAI's shape, ≤ 96 MiB more", _oversized),
    Row("routes", "dangerous engine routes in any spelling", "404 or 400, nothing at the engine", _dangerous),
)
