"""Sleep and waking up, asked of the simulator over its unix socket, and of engines that do not do as they are told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from plugins import sleeper
from plugins.exchange import Engine
from plugins.sleeper import put_to_sleep, wake_up
from tests.plans import model_plan
from tests.simulator.running import Running
from tests.simulator.running import running as simulator
from vllm_circus.lifecycle.events import SleepRefused, Slept, WakeRefused, Woken
from vllm_circus.plan.types import Endpoint

T = TypeVar("T")


def model(socket: str) -> Any:
    return model_plan(endpoint=Endpoint("127.0.0.1", 1, socket))


@pytest.fixture
def engine(short_dir: Path) -> Iterator[Running]:
    socket = f"{short_dir}/e.sock"
    with simulator(short_dir, "--uds", socket, "--enable-sleep-mode", environ={"VLLM_SERVER_DEV_MODE": "1"}) as one:
        yield one.wait_ready()


def do(socket: str, work: Callable[[Engine], Coroutine[Any, Any, T]]) -> T:
    return asyncio.run(work(Engine(model(socket), None)))


@pytest.mark.parametrize("level", [1, 2])
def test_an_engine_sleeps_and_says_after_it_what_it_said_before(engine: Running, short_dir: Path, level: int) -> None:
    socket = f"{short_dir}/e.sock"
    before = engine.chat(max_tokens=5).json["choices"][0]["message"]
    for _ in range(2):  # a successor may ask again
        assert do(socket, lambda one: put_to_sleep(model(socket), one, 7, level)) == Slept(7)
    assert engine.ask("GET", "/is_sleeping").json == {"is_sleeping": True}
    for _ in range(2):
        assert do(socket, lambda one: wake_up(one, 7, level)) == Woken(7)
    assert engine.ask("GET", "/is_sleeping").json == {"is_sleeping": False}
    assert engine.chat(max_tokens=5).json["choices"][0]["message"] == before


def scripted(
    socket: str, answers: dict[str, tuple[int, object]], work: Callable[[Engine], Coroutine[Any, Any, T]]
) -> T:
    """Do something with an engine that answers so; what it has no answer for stays unanswered."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        path = head.split(b" ")[1].decode()
        if path in answers:
            status, document = answers[path]
            body = json.dumps(document).encode()
            writer.write(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body))
        else:
            await reader.read()
        writer.close()

    async def scene() -> T:
        async with await asyncio.start_unix_server(serve, socket):
            return await work(Engine(model(socket), None))

    return asyncio.run(scene())


AWAKE, ASLEEP = {"is_sleeping": False}, {"is_sleeping": True}


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ({"/sleep?level=1": (200, {}), "/is_sleeping": (200, ASLEEP)}, Slept(7)),
        ({"/sleep?level=1": (200, {}), "/is_sleeping": (200, AWAKE)}, SleepRefused(7, "it says that it is awake")),
        ({"/sleep?level=1": (404, {}), "/is_sleeping": (404, {})}, SleepRefused(7, "/sleep?level=1 answers 404")),
        ({"/sleep?level=1": (500, {}), "/is_sleeping": (200, AWAKE)}, SleepRefused(7, "/sleep?level=1 answers 500")),
        ({"/is_sleeping": (200, AWAKE)}, SleepRefused(7, "no answer within 0.3 s")),
        ({"/sleep?level=1": (500, {}), "/is_sleeping": (200, ASLEEP)}, None),
        ({"/sleep?level=1": (200, {})}, None),
        ({}, None),
    ],
    ids=["sleeps", "does not", "cannot", "fails", "too slow", "half asleep", "says nothing then", "says nothing"],
)
def test_an_engine_sleeps_when_it_says_so_and_one_that_says_neither_is_in_nobody_knows_what_state(
    short_dir: Path, monkeypatch: pytest.MonkeyPatch, answers: dict[str, tuple[int, object]], said: object
) -> None:
    monkeypatch.setattr(sleeper, "_SLEEP_WITHIN", 0.3)
    monkeypatch.setattr(sleeper, "_ASK_WITHIN", 0.3)
    socket = f"{short_dir}/e.sock"
    assert scripted(socket, answers, lambda one: put_to_sleep(model(socket), one, 7, 1)) == said


WEIGHTS, RELOAD, CACHE, RESET = (
    "/wake_up?tags=weights",
    "/collective_rpc",
    "/wake_up?tags=kv_cache",
    "/reset_prefix_cache",
)
WELL: dict[str, tuple[int, object]] = {
    "/wake_up": (200, {}),
    WEIGHTS: (200, {}),
    RELOAD: (200, {"results": [None]}),
    CACHE: (200, {}),
    RESET: (200, {"success": True}),
    "/is_sleeping": (200, AWAKE),
}


@pytest.mark.parametrize(
    ("level", "change", "said"),
    [
        (1, {}, Woken(7)),
        (2, {}, Woken(7)),
        (1, {"/wake_up": (500, {})}, WakeRefused(7, "/wake_up answers 500")),
        (2, {RELOAD: (500, {})}, WakeRefused(7, "/collective_rpc answers 500")),
        (2, {RESET: (200, {"success": False})}, WakeRefused(7, "/reset_prefix_cache did not succeed")),
        (2, {"/is_sleeping": (200, ASLEEP)}, WakeRefused(7, "it does not say that it is awake")),
    ],
)
def test_an_engine_is_awake_when_every_step_went_well_and_it_says_so(
    short_dir: Path, level: int, change: dict[str, tuple[int, object]], said: object
) -> None:
    assert scripted(f"{short_dir}/e.sock", WELL | change, lambda one: wake_up(one, 7, level)) == said


def test_an_engine_that_is_gone_does_not_wake_up(short_dir: Path) -> None:
    said = do(f"{short_dir}/e.sock", lambda one: wake_up(one, 7, 1))
    assert isinstance(said, WakeRefused)
    assert "No such file" in said.cause
