from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from plugins.drains import SETTLED, STALE
from plugins.lookout import Lookout
from tests.plans import model_plan
from vllm_circus.bus.messages import CountsMessage, ModelCounts, WorkerState
from vllm_circus.lifecycle.events import Answering, Asked, Drained, Event, ProbeFailed, ProbeOk, Quiet, Unheard
from vllm_circus.lifecycle.life import Life
from vllm_circus.lifecycle.states import State
from vllm_circus.plan.types import Endpoint, ModelPlan

LIST = b'{"data": [{"id": "a"}, {"id": "old"}]}'


@dataclass
class Scene:
    """One model, a clock that the test sets, and what is fed and begun."""

    life: Life
    model: ModelPlan
    secrets: Path
    fed: list[Event] = field(default_factory=list)
    begun: list[Coroutine[Any, Any, None]] = field(default_factory=list)
    sequence: int = 5

    def __post_init__(self) -> None:
        self.models = {"a": self.model}
        self.turned: dict[str, int] = {}
        self.lookout = Lookout(
            self, lambda _name, event: self.fed.append(event), lambda _what, work: self.begun.append(work), self.secrets
        )

    @property
    def lives(self) -> dict[str, Life]:
        return {"a": self.life}

    def running(self, name: str) -> ModelPlan:
        return self.models[name]

    def hear(self, **counts: Any) -> list[Event]:
        self.fed.clear()
        workers = (WorkerState(9, 5, 1, 0.0),)
        self.lookout.hear(CountsMessage(1.0, 1, {"a": ModelCounts(**counts)}, {}, {}, {}, workers, ()))
        return self.fed


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_what_the_workers_tell_is_fed_and_a_drained_model_is_noticed_at_once(
    clock: list[float], short_dir: Path
) -> None:
    scene = Scene(Life(state=State.DRAINING, pid=7), model_plan(), short_dir)
    assert scene.hear(in_flight=1) == [Asked()]
    clock[0] += SETTLED
    assert scene.hear(in_flight=1, statuses={200: 1}) == [Answering(), Asked()]
    assert scene.hear(statuses={200: 1}) == [Quiet(), Drained()]


def test_a_stats_plugin_that_is_silent_is_told(clock: list[float], short_dir: Path) -> None:
    scene = Scene(Life(state=State.READY, pid=7), model_plan(), short_dir)
    scene.hear()
    scene.fed.clear()
    scene.lookout.look_round(clock[0])
    assert scene.fed == []
    scene.lookout.look_round(clock[0] + STALE + 0.1)
    assert scene.fed == [Unheard()]


async def serve(path: str) -> asyncio.Server:
    """An engine that is healthy and lists its names."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.readuntil(b"\r\n\r\n")
        body = LIST if b"/v1/models" in asked else b""
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        writer.close()

    return await asyncio.start_unix_server(answer, path)


def probed(scene: Scene, *, each: float) -> list[Event]:
    """What the probes of ten seconds fed, looked at every so many seconds."""

    async def play() -> None:
        async with await serve(str(scene.model.endpoint.uds)):
            for turn in range(round(10 / each)):
                scene.lookout.look("a", 1000.0 + turn * each)
            for work in scene.begun:
                await work

    asyncio.run(play())
    return scene.fed


@pytest.mark.parametrize(
    ("state", "probes"),
    [(State.READY, 5), (State.DRAINING, 5), (State.UNHEALTHY, 5), (State.LOADING, 20), (State.WAKING, 20)],
)
def test_what_arrives_is_probed_more_often(short_dir: Path, state: State, probes: int) -> None:
    model = model_plan(endpoint=Endpoint("127.0.0.1", 1, f"{short_dir}/e.sock"))
    fed = probed(Scene(Life(state=state, pid=7, names=("a",)), model, short_dir), each=0.25)
    assert [type(event) for event in fed] == [ProbeOk] * probes


@pytest.mark.parametrize("state", [State.STOPPED, State.QUEUED, State.SLEEPING, State.STOPPING])
def test_what_cannot_answer_is_not_probed(short_dir: Path, state: State) -> None:
    model = model_plan(endpoint=Endpoint("127.0.0.1", 1, f"{short_dir}/e.sock"))
    assert probed(Scene(Life(state=state, pid=7), model, short_dir), each=0.5) == []


def test_an_engine_is_to_list_what_it_was_started_with_of_the_names_that_it_has_now(short_dir: Path) -> None:
    model = model_plan(names=("a", "new"), endpoint=Endpoint("127.0.0.1", 1, f"{short_dir}/e.sock"))
    older = Scene(Life(state=State.UNHEALTHY, pid=7, names=("a", "old")), model, short_dir)
    assert isinstance(probed(older, each=10)[0], ProbeOk)
    newer = Scene(Life(state=State.UNHEALTHY, pid=7, names=("a", "new")), model, short_dir)
    fault = probed(newer, each=10)[0]
    assert isinstance(fault, ProbeFailed)
    assert fault.cause == "does not serve new"
