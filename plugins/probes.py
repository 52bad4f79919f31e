"""Ask an engine how it is: one GET on a connection of its own.

A probe never raises, never takes longer than its time and never reads more than a megabyte. The engine may listen on
a port or on a unix socket. No HTTP client of the usual kind is used: a new connection is wanted, since a kept one says
nothing about whether a client would get one.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httptools

from vllm_circus.lifecycle.events import ProbeFailed, ProbeOk
from vllm_circus.plan.types import Endpoint, ModelPlan

_MOST_BYTES = 1 << 20


@dataclass(frozen=True)
class Answer:
    """A whole response."""

    status: int
    body: bytes


class NoAnswer(Exception):
    """Nothing answered, or nothing that is HTTP; the text says what came instead."""


async def probe(model: ModelPlan, *, asked: float, secrets: Path | None, with_names: bool) -> ProbeOk | ProbeFailed:
    """How the engine is: its health path answers 200 and, `with_names`, it lists every name that it is to serve.

    `asked` is the steady time of now. `secrets` is the instance's folder of engine keys.
    """
    try:
        async with asyncio.timeout(model.probe.timeout):
            fault = await _fault(model, secrets, with_names=with_names)
    except TimeoutError:
        return ProbeFailed(asked, f"no answer within {model.probe.timeout:g} s")
    except (NoAnswer, OSError) as error:
        return ProbeFailed(asked, str(error) or type(error).__name__)
    return ProbeFailed(asked, fault, answered=True) if fault else ProbeOk(asked)


async def get(endpoint: Endpoint, path: str, headers: Mapping[str, str] | None = None) -> Answer:
    """GET a path. Raises NoAnswer or OSError; takes as long as it takes."""
    reader, writer = await _connect(endpoint)
    try:
        lines = {"Host": f"{endpoint.host}:{endpoint.port}", "Connection": "close", **(headers or {})}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        writer.write(f"GET {path} HTTP/1.1\r\n{head}\r\n".encode())
        return await _read_answer(reader)
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


def read_key(secrets: Path | None, model: str) -> str | None:
    """The key that an engine asks for, from the variables that it was started with; None where it has none."""
    if secrets is None:
        return None
    with suppress(OSError, ValueError):
        variables = json.loads((secrets / f"{model}.json").read_bytes())
        key = variables.get("VLLM_API_KEY") if isinstance(variables, dict) else None
        return key if isinstance(key, str) and key.isascii() and key.isprintable() else None
    return None


def missing_names(body: bytes, wanted: Iterable[str]) -> tuple[str, ...] | None:
    """Which names a `/v1/models` answer lacks; None where it is no such answer."""
    try:
        listed = {str(item["id"]) for item in json.loads(body)["data"]}
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return tuple(name for name in wanted if name not in listed)


async def _fault(model: ModelPlan, secrets: Path | None, *, with_names: bool) -> str:
    """What is wrong; empty when nothing is."""
    health = await get(model.endpoint, model.probe.path)
    if health.status != 200:
        return f"{model.probe.path} answers {health.status}"
    if not with_names:
        return ""
    key = read_key(secrets, model.name)
    listed = await get(model.endpoint, "/v1/models", {"Authorization": f"Bearer {key}"} if key else None)
    if listed.status != 200:
        return f"/v1/models answers {listed.status}"
    missing = missing_names(listed.body, model.names)
    if missing is None:
        return "/v1/models answers with something else than a list of models"
    return f"does not serve {', '.join(missing)}" if missing else ""


async def _connect(endpoint: Endpoint) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if endpoint.uds:
        return await asyncio.open_unix_connection(endpoint.uds)
    return await asyncio.open_connection(endpoint.host, endpoint.port)


async def _read_answer(reader: asyncio.StreamReader) -> Answer:
    collected = _Collector()
    parser = httptools.HttpResponseParser(collected)
    try:
        while not collected.complete:
            data = await reader.read(1 << 16)
            if not data:
                break
            parser.feed_data(data)
            if collected.size > _MOST_BYTES:
                raise NoAnswer(f"answers with more than {_MOST_BYTES} bytes")
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
