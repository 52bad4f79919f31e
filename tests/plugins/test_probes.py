from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from plugins.exchange import read_key
from plugins.probes import missing_names, probe
from tests.plans import model_plan
from vllm_circus.config.models import Probe
from vllm_circus.lifecycle.events import ProbeFailed, ProbeOk
from vllm_circus.plan.types import Endpoint, ModelPlan

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
LIST = b'{"object":"list","data":[{"id":"a"},{"id":"bee"}]}'
LISTED = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(LIST), LIST)
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(LIST), LIST)
NOT_HTTP = "answers with something that is not HTTP"
UNTIL_CLOSE = b"HTTP/1.0 200 OK\r\n\r\n" + LIST


def ask(
    answers: dict[bytes, bytes],
    *,
    model: ModelPlan | None = None,
    names: tuple[str, ...] = (),
    secrets: Path | None = None,
    uds: str | None = None,
) -> tuple[ProbeOk | ProbeFailed, list[bytes]]:
    """Probe a server that answers each path with the given bytes; an empty answer is silence."""
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        heard.append(head)
        answer = answers[head.split(b" ")[1]]
        if answer:
            writer.write(answer)
        else:
            await reader.read()
        writer.close()

    async def scene() -> ProbeOk | ProbeFailed:
        if uds:
            server = await asyncio.start_unix_server(serve, uds)
            endpoint = Endpoint("127.0.0.1", 1, uds)
        else:
            server = await asyncio.start_server(serve, "127.0.0.1", 0)
            endpoint = Endpoint("127.0.0.1", server.sockets[0].getsockname()[1])
        async with server:
            plan = replace(model or model_plan(), endpoint=endpoint)
            return await probe(plan, asked=5.0, secrets=secrets, names=names)

    return asyncio.run(scene()), heard


def test_200_is_healthy_and_a_new_connection_is_used_each_time() -> None:
    result, heard = ask({b"/health": OK})
    assert result == ProbeOk(5.0)
    assert heard[0].startswith(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1:")
    assert b"\r\nConnection: close\r\n" in heard[0]


@pytest.mark.parametrize("listed", [LISTED, CHUNKED, UNTIL_CLOSE], ids=["length", "chunked", "until close"])
def test_ready_takes_every_name(listed: bytes) -> None:
    assert ask({b"/health": OK, b"/v1/models": listed}, names=("a", "bee"))[0] == ProbeOk(5.0)
    result, _ = ask({b"/health": OK, b"/v1/models": listed}, names=("a", "bee", "lora-x", "lora-y"))
    assert result == ProbeFailed(5.0, "does not serve lora-x, lora-y", answered=True)


def test_the_engines_key_is_sent(short_dir: Path) -> None:
    (short_dir / "a.json").write_text(json.dumps({"VLLM_API_KEY": "sk-1", "OTHER": "x"}))
    result, heard = ask({b"/health": OK, b"/v1/models": LISTED}, names=("a",), secrets=short_dir)
    assert result == ProbeOk(5.0)
    assert b"Authorization" not in heard[0]
    assert b"\r\nAuthorization: Bearer sk-1\r\n" in heard[1]


def test_an_engine_may_listen_on_a_unix_socket(short_dir: Path) -> None:
    assert ask({b"/health": OK}, uds=f"{short_dir}/e.sock")[0] == ProbeOk(5.0)


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", "/health answers 503"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "/health answers 404"),
        (b"HTTP/1.1 401 \r\nContent-Length: 3\r\n\r\nno!", "/health answers 401"),
    ],
)
def test_another_status_is_a_failure_that_answered(answer: bytes, fault: str) -> None:
    assert ask({b"/health": answer})[0] == ProbeFailed(5.0, fault, answered=True)


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", NOT_HTTP),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort", "closed the connection without an answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "closed the connection without an answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nContent-Length: 1\r\n\r\n", NOT_HTTP),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (3 << 20), "answers with more than 1048576 bytes"),
    ],
    ids=["not HTTP", "short body", "half a head", "two lengths", "endless"],
)  # fmt: skip
def test_what_is_no_answer_is_a_failure(answer: bytes, fault: str) -> None:
    assert ask({b"/health": answer})[0] == ProbeFailed(5.0, fault)


def test_silence_ends_in_time() -> None:
    quick = replace(model_plan(), probe=Probe(timeout=0.2))
    assert ask({b"/health": b""}, model=quick)[0] == ProbeFailed(5.0, "no answer within 0.2 s")


def test_nobody_there_is_a_failure(free_port: Callable[[], int]) -> None:
    plan = replace(model_plan(), endpoint=Endpoint("127.0.0.1", free_port()))
    result = asyncio.run(probe(plan, asked=5.0, secrets=None, names=("a",)))
    assert isinstance(result, ProbeFailed)
    assert not result.answered


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"data":1}', b'{"data":[1]}', b"\xff", b"[" * 100_000, b'{"data":[{}]}']
)
def test_what_is_no_list_of_models_is_told_as_such(body: bytes) -> None:
    assert missing_names(body, ("a",)) is None


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"VLLM_API_KEY": 5}', '{"VLLM_API_KEY": "a\\r\\nX: y"}'])
def test_a_key_that_cannot_be_used_is_none(short_dir: Path, content: str) -> None:
    (short_dir / "a.json").write_text(content)
    assert read_key(short_dir, "a") is None
    assert read_key(None, "a") is None
    assert read_key(short_dir, "b") is None
