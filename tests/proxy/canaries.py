"""A strict engine and clients that know their own answers: whoever loses the step between two requests is caught.

The engine reads with llhttp, which knows nothing of the relay's reading, and answers with the number that a request
carries in `X-Case`; so an answer that is not one's own shows at once, whichever connection lost its step.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import cast

import httptools

from tests.proxy.scripted import DEADLINE

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
