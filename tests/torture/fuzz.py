"""The row of random bytes: good requests and good responses, changed a little, over and over.

Rules: the engine reads requests with llhttp, in its strict mode, and numbers its answers. Whatever a changed message
does, a good request right behind it, on a steady connection, gets its own answer; what the engine gets is never
doubtful; where llhttp refuses what a client gets, the connection was cut right there. The figure tells the seed.
"""

from __future__ import annotations

import asyncio
import os
import random
from contextlib import suppress
from time import monotonic

import httptools

from tests.proxy.canaries import Client, Engine, Seen
from tests.torture.stage import MIB, Effort, Result, Row, stage
from tests.torture.wire import STREAM_HEAD

_BODY = b'{"model":"alpha","messages":[{"role":"user","content":"hello"}]}'
_HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nX-Case: fuzz\r\n"
_CHUNKS = b"10\r\n%b\r\n%x;a=b\r\n%b\r\n0\r\nX-T: 1\r\n\r\n" % (_BODY[:16], len(_BODY) - 16, _BODY[16:])
_REQUESTS = (
    _HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(_BODY), _BODY),
    _HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + _CHUNKS,
    _HEAD + b"Content-Length: %d\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n%b" % (len(_BODY), _BODY),
    b"GET /version?model=alpha HTTP/1.1\r\nHost: x\r\nX-Case: fuzz\r\nAccept: */*\r\n\r\n",
    b"GET http://x/health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: x\r\nOrigin: http://y\r\n\r\n",
)
_RESPONSES = (
    b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 11\r\n\r\n{"ok":true}',
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n2\r\nde\r\n0\r\nX-T: 1\r\n\r\n",
    STREAM_HEAD + b"9\r\ndata: a\n\n\r\ne\r\ndata: [DONE]\n\n\r\n0\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nX: x\r\n\r\nHTTP/1.1 404 No\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}",
    b"HTTP/1.1 204 No Content\r\nX-Request-Id: 1\r\n\r\n",
)
_WORDS = (
    *(b"\r\n", b"\n", b"\r", b"\x00", b" ", b"\t", b":", b";", b",", b"0", b"-", b"+", b"0x", b"\r\n\r\n", b"\xff"),
    *(b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"chunked", b"identity", b"Connection: close\r\n"),
    *(b"0\r\n\r\n", b"HTTP/1.1", b"HTTP/1.0", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"999999999999999999", b"{", b"}"),
    *(b"Expect: 100-continue\r\n", b"Upgrade: websocket\r\n", b"Connection: upgrade\r\n", b"%2e", b"//", b"\xc2\x85"),
)  # fmt: skip


def mutate(chance: random.Random, data: bytes) -> bytes:
    """The data with one to four small changes."""
    for _ in range(chance.randint(1, 4)):
        at, size = chance.randrange(len(data) + 1), chance.choice((0, 0, 1, 1, 2, 8))
        put = chance.choice((b"", chance.choice(_WORDS), bytes([chance.randrange(256)]), data[at : at + 20]))
        data = data[:at] + put + data[at + size :]
    return data


class Faulty(Engine):
    """Answers a request that carries `fuzz` with a changed response; every other one as it should."""

    def __init__(self, seen: Seen, chance: random.Random) -> None:
        super().__init__(seen)
        self._chance = chance

    def on_message_complete(self) -> None:
        if dict(self._fields).get(b"x-case") != b"fuzz" or self._chance.random() < 0.5:
            super().on_message_complete()
            return
        raw = mutate(self._chance, self._chance.choice(_RESPONSES))
        cut = self._chance.randrange(len(raw) + 1)
        self._transport.write(raw[:cut])
        loop = asyncio.get_running_loop()
        loop.call_later(0.002, self._rest, raw[cut:], self._chance.random() < 0.7)

    def _rest(self, data: bytes, ends: bool) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)
            if ends or b"Content-Length" in data:
                self._transport.close()
            else:  # an answer without an end would keep its client for ever
                asyncio.get_running_loop().call_later(0.05, self._transport.close)


class Reader:
    """Reads what a client gets with llhttp."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self.bytes = b""

    def feed(self, data: bytes) -> str:
        """Empty, or what llhttp says against it."""
        self.bytes += data
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            return ""
        except httptools.HttpParserError as error:
            return f"{error}: {self.bytes[-300:]!r}"
        return ""


async def _one(port: int, data: bytes, *, half: bool) -> str:
    """Send it, perhaps with nothing to follow, and read for a moment; returns what was wrong with what came."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    judge = Reader()
    try:
        writer.write(data)
        if half:  # so that what is not whole is not waited for
            writer.write_eof()
        async with asyncio.timeout(0.15):
            while got := await reader.read(65536):
                if wrong := judge.feed(got):
                    return wrong
    except (OSError, TimeoutError):  # a reset is a cut, too
        return ""
    finally:
        writer.transport.abort()
    return ""


async def _fuzz(effort: Effort) -> Result:
    seed = int.from_bytes(os.urandom(4))
    chance, seen, tried = random.Random(seed), Seen(), 0
    faults: list[str] = []
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Faulty(seen, chance), "127.0.0.1", 0)
    async with stage(ports=(server.sockets[0].getsockname()[1],)) as made:
        before, end = made.rss(), monotonic() + effort.fuzz_seconds

        async def work(name: int) -> None:
            nonlocal tried
            steady, turn = await Client.open(made.port), 0
            while monotonic() < end and len(faults) < 5:
                tried, turn = tried + 1, turn + 1
                data = mutate(chance, chance.choice(_REQUESTS)) if turn % 2 else _REQUESTS[turn // 2 % 4]
                wrong = await _one(made.port, data, half=turn % 16 != 0)
                with suppress(asyncio.IncompleteReadError):
                    wrong = wrong or await steady.canary(b"steady-%d-%d" % (name, turn))
                    if not wrong:
                        continue
                faults.append(f"{wrong or 'the canary was cut'} after {data!r}")
                steady = await Client.open(made.port)

        await asyncio.gather(*map(work, range(16)))
        growth, wrong = made.rss() - before, made.healthy()
    server.close()
    faults += seen.doubtful
    figure = f"{tried:,} messages, seed {seed}: {len(faults)} faults; grown by {growth / MIB:.0f} MiB"
    figure += "".join(f"; {fault[:300]}" for fault in faults[:3])
    return Result(figure + wrong, not faults and not wrong and growth <= 32 * MIB)


ROWS = (
    Row(
        "fuzz",
        "random changes to requests and responses",
        "no desync, nothing doubtful either way, ≤ 32 MiB more",
        _fuzz,
    ),
)
