"""No request hides in another one: thousands of doubtful requests, one strict engine, and canaries behind each.

The engine reads with llhttp, which knows nothing of the relay's reading, and answers with the number that a request
carries; so an answer that is not one's own shows at once, whichever of both connections lost its step.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import cast

import httptools
import pytest
import uvloop

from tests.proxy.conftest import Start, a_model
from tests.proxy.scripted import DEADLINE
from tests.proxy.smuggling_cases import HIDDEN, HIDDEN_REQUEST, MARK, Case, Owed, all_cases

#: Clients at a time.
_CLIENTS = 24
_HEAD = re.compile(rb"HTTP/1\.1 (\d{3}) [^\r\n]*\r\n((?:[^\r\n:]+:[^\r\n]*\r\n)*)\r\n")
_CANARY_BODY = b'{"model":"alpha"}'
_CANARY = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nX-Case: %%b\r\nContent-Length: %d\r\n\r\n%b" % (
    len(_CANARY_BODY),
    _CANARY_BODY,
)


@dataclass
class Seen:
    """What came to the engine: per number the bodies, and what was no request."""

    bodies: defaultdict[bytes, list[bytes]] = field(default_factory=lambda: defaultdict(list))
    doubtful: list[str] = field(default_factory=list)
    connections: int = 0


class Engine(asyncio.Protocol):
    """One connection, read by llhttp in its strict mode."""

    def __init__(self, seen: Seen) -> None:
        self._seen = seen
        seen.connections += 1
        self._parser = httptools.HttpRequestParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._seen.doubtful.append(f"{error}: {data!r}")
            self._transport.close()

    def on_message_begin(self) -> None:
        self._fields: list[tuple[bytes, bytes]] = []
        self._body = b""

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields.append((name.lower(), value))

    def on_body(self, data: bytes) -> None:
        self._body += data

    def on_message_complete(self) -> None:
        names = Counter(name for name, _ in self._fields)
        if names[b"content-length"] + names[b"transfer-encoding"] > 1 or names[b"host"] != 1:
            self._seen.doubtful.append(f"two framings or hosts: {self._fields}")
        number = dict(self._fields).get(b"x-case", b"")
        self._seen.bodies[number].append(self._body)
        answer = b'{"case":"%b"}' % number
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        self._transport.write(head % len(answer) + answer)


@dataclass(frozen=True)
class Answer:
    """One answer as a client saw it."""

    status: int
    fields: dict[bytes, bytes]
    body: bytes

    @property
    def closes(self) -> bool:
        return self.fields.get(b"connection") == b"close"

    @property
    def case(self) -> str | None:
        """The number of the request that it answers; None for an answer of the proxy's own."""
        return None if b"x-vllm-circus-error" in self.fields else json.loads(self.body).get("case")


class Client:
    """One connection to the proxy."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, port: int) -> Client:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def send(self, pieces: list[bytes]) -> None:
        for piece in pieces[:-1]:
            self.writer.write(piece)
            await asyncio.sleep(0.001)  # most of them arrive apart
        self.writer.write(pieces[-1])

    async def read(self) -> Answer:
        async with asyncio.timeout(DEADLINE):
            head = await self._reader.readuntil(b"\r\n\r\n")
            match = _HEAD.fullmatch(head)
            assert match is not None, head
            lines = (line.partition(b":") for line in match[2].split(b"\r\n") if line)
            fields = {name.lower(): value.strip() for name, _, value in lines}
            if match[1] == b"100":
                return await self.read()
            return Answer(int(match[1]), fields, await self._reader.readexactly(int(fields[b"content-length"])))

    async def rest(self) -> bytes:
        """What comes up to the end of the connection."""
        async with asyncio.timeout(DEADLINE):
            return await self._reader.read()

    async def canary(self, number: bytes) -> str:
        """Empty, or what was answered instead of what was asked."""
        self.writer.write(_CANARY % number)
        answer = await self.read()
        return "" if answer.case == number.decode() else f"the canary got {answer}"


def _pieces(raw: bytes, number: int) -> list[bytes]:
    """Every second case comes in one piece, the others cut within their head, their framing and their end."""
    if number % 2:
        return [raw]
    places = sorted({0, len(raw) // 3, raw.find(b"\r\n\r\n") + 3, len(raw) - len(HIDDEN_REQUEST) - 2, len(raw)})
    return [raw[begin:end] for begin, end in itertools.pairwise(places) if begin >= 0]


async def _try(case: Case, number: int, port: int) -> str:
    """Send one case with a canary behind it; returns what was wrong with the answers, or nothing."""
    mark, after = b"%06d" % number, b"after-%06d" % number
    client = await Client.open(port)
    try:
        raw = (case.raw + HIDDEN_REQUEST if case.owed is Owed.REFUSED else case.raw).replace(MARK, mark)
        await client.send(_pieces(raw, number))
        answer = await client.read()
        if case.owed is Owed.TAKEN:
            return f"it got {answer}" if answer.case != mark.decode() else await client.canary(after)
        if not 400 <= answer.status < 600 or b"x-vllm-circus-error" not in answer.fields:
            return f"it got {answer}"
        if answer.closes:
            rest = await client.rest()
            return f"after the refusal came {rest!r}" if rest else ""
        return "the connection stays" if case.owed is Owed.REFUSED else await client.canary(after)
    except (OSError, EOFError, TimeoutError) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        client.writer.close()


async def _run(cases: list[Case], proxy: int, seen: Seen) -> list[str]:
    """Try every case; returns what was wrong."""
    faults: list[str] = []
    waiting = iter(enumerate(cases))

    async def work(name: int) -> None:
        steady = await Client.open(proxy)
        for number, case in waiting:
            wrong = await _try(case, number, proxy) or await steady.canary(b"steady-%d-%d" % (name, number))
            wrong = wrong or _at_the_engine(case, seen.bodies.get(b"%06d" % number, []))
            if wrong:
                faults.append(f"{case.name} ({case.owed.name}): {wrong}")
        steady.writer.close()

    await asyncio.gather(*map(work, range(_CLIENTS)))
    return faults


def _at_the_engine(case: Case, bodies: list[bytes]) -> str:
    if case.owed is not Owed.TAKEN:
        return f"the engine saw it: {bodies}" if bodies else ""
    same = len(bodies) == 1 and re.sub(rb"\d{6}", MARK, bodies[0]) == re.sub(rb"\d{6}", MARK, case.body)
    return "" if same else f"the engine saw {bodies}"


@pytest.fixture(scope="module")
def cases() -> Iterator[list[Case]]:
    made = all_cases()
    yield made
    made.clear()


def test_there_are_more_than_two_thousand_cases_and_no_two_are_one(cases: list[Case]) -> None:
    assert len({case.raw for case in cases}) == len(cases) > 2000
    assert [name for name, count in Counter(case.name for case in cases).items() if count > 1] == []


def test_no_request_hides_in_another_one(start: Start, cases: list[Case]) -> None:
    async def run() -> tuple[Seen, list[str]]:
        seen = Seen()
        server = await asyncio.get_running_loop().create_server(lambda: Engine(seen), "127.0.0.1", 0)
        worker = start(a_model("alpha", server.sockets[0].getsockname()[1]))
        faults = await _run(cases, worker.port, seen)
        server.close()
        with suppress(ProcessLookupError):
            worker.process.kill()
        return seen, faults

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        seen, faults = runner.run(run())
    assert faults == []
    assert seen.doubtful == []
    assert [number for number in seen.bodies if number.startswith(HIDDEN)] == []
    assert len(seen.bodies[b""]) == 0
    assert max(map(len, seen.bodies.values())) == 1, "a request came twice"
