"""One request to an engine on a connection of its own, and its whole answer.

An engine may listen on a port or on a unix socket. No HTTP client of the usual kind is used: a new connection is wanted
each time, since a kept one says nothing about whether a client would get one. An answer is read up to a size. Nothing
here limits the time: callers do.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httptools

from vllm_circus.enginekeys import read_engine_key
from vllm_circus.plan.types import Endpoint, ModelPlan

_MOST_BYTES = 1 << 20


@dataclass(frozen=True)
class Answer:
    """A whole response."""

    status: int
    body: bytes


class NoAnswer(Exception):
    """Nothing answered, or nothing that is HTTP; the text says what came instead."""


class Engine:
    """One model's engine, as its own clients see it. `secrets` is the instance's folder of engine keys."""

    def __init__(self, model: ModelPlan, secrets: Path | None) -> None:
        self._endpoint = model.endpoint
        self._name = model.name
        self._secrets = secrets

    async def ask(
        self, method: str, path: str, body: bytes = b"", *, keyed: bool = True, most: int = _MOST_BYTES
    ) -> Answer:
        """Send a request and read the answer, of `most` bytes; `body` is JSON. Raises NoAnswer or OSError.

        `keyed` is whether the engine's own key is sent along, where it has one.
        """
        reader, writer = await _connect(self._endpoint)
        try:
            key = read_key(self._secrets, self._name) if keyed else None
            writer.write(_request(method, path, self._endpoint, key, body))
            return await _read_answer(reader, most)
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


def read_key(secrets: Path | None, model: str) -> str | None:
    """The key that an engine asks for, from the variables that it was started with; None where it has none."""
    if secrets is not None:
        with suppress(OSError, ValueError):
            return read_engine_key(secrets / f"{model}.json")
    return None


def _request(method: str, path: str, endpoint: Endpoint, key: str | None, body: bytes) -> bytes:
    lines = {"Host": f"{endpoint.host}:{endpoint.port}", "Connection": "close"}
    if key is not None:
        lines["Authorization"] = f"Bearer {key}"
    if body:
        lines["Content-Type"] = "application/json"
    if body or method != "GET":
        lines["Content-Length"] = str(len(body))
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body


async def _connect(endpoint: Endpoint) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if endpoint.uds:
        return await asyncio.open_unix_connection(endpoint.uds)
    return await asyncio.open_connection(endpoint.host, endpoint.port)


async def _read_answer(reader: asyncio.StreamReader, most: int) -> Answer:
    collected = _Collector()
    parser = httptools.HttpResponseParser(collected)
    try:
        while not collected.complete:
            data = await reader.read(1 << 16)
            if not data:
                break
            parser.feed_data(data)
            if collected.size > most:
                raise NoAnswer(f"answers with more than {most} bytes")
        status = parser.get_status_code()
    except httptools.HttpParserError as error:
        raise NoAnswer("answers with something that is not HTTP") from error
    if not collected.headed or (not collected.complete and not collected.until_close):
        raise NoAnswer("closed the connection without an answer")
    return Answer(status, b"".join(collected.parts))


class _Collector:
    """What the parser tells: the names are its own."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.size = 0
        self.headed = False
        self.complete = False
        self.until_close = True

    def on_header(self, name: bytes, _value: bytes) -> None:
        if name.lower() in {b"content-length", b"transfer-encoding"}:
            self.until_close = False

    def on_headers_complete(self) -> None:
        self.headed = True

    def on_body(self, data: bytes) -> None:
        self.size += len(data)
        self.parts.append(data)

    def on_message_complete(self) -> None:
        self.complete = True
