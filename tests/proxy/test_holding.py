"""Requests for a model that is on its way, or comes when it is asked for: they wait, and the model is told."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from tests.proxy.bus import Bus, bus_of
from tests.proxy.conftest import Start, Worker, a_model
from tests.proxy.engines import ASK, Held, all_seen, ask, engines, replicas, seen
from tests.proxy.inside import Inside, comes_true, play
from tests.proxy.scripted import Backend, Message, Peer, get, ok, post, read_message, until
from vllm_circus.bus.messages import ModelsMessage, ModelState
from vllm_circus.config.models import Queue
from vllm_circus.lifecycle.states import State
from vllm_circus.plan.types import Adapter, ModelPlan

RESTING = ModelState("chat-1", State.STOPPED, on_call=True)
READY = ModelState("chat-1", State.READY)


@pytest.fixture
def held(backend: Backend) -> Held:
    script = Held()
    backend.plays(script)
    return script


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


def waiting(bus: Bus, number: int, name: str = "chat-1") -> bool:
    return until(lambda: bus.told and bus.told[-1].models[name].waiting == number)


def tell(bus: Bus, *states: ModelState) -> None:
    assert bus.acted_on(bus.says(*states))


def resting(start: Start, stack: ExitStack, *models: ModelPlan) -> tuple[Worker, Bus]:
    """A worker that was told that its first model is on call."""
    worker = start(*models)
    bus = stack.enter_context(bus_of(worker))
    tell(bus, RESTING)
    return worker, bus


# held and served


@pytest.mark.parametrize(
    "state",
    [
        RESTING,
        ModelState("chat-1", State.SLEEPING),
        ModelState("chat-1", State.DRAINING, on_call=True),
        *(ModelState("chat-1", state, awaited=True) for state in (State.STOPPING, State.LOADING)),
        ModelState("chat-1", State.QUEUED, awaited=True),
    ],
    ids=lambda state: f"{state.state}{' awaited' * state.awaited}{' on call' * state.on_call}",
)
def test_a_request_waits_for_a_model_that_comes(
    start: Start, stack: ExitStack, backend: Backend, state: ModelState
) -> None:
    worker, bus = resting(start, stack, *replicas(backend.port))
    tell(bus, state)
    client = ask(worker)
    assert waiting(bus, 1)
    assert backend.requests == []
    tell(bus, READY)
    assert read_message(client).body == b'{"ok":true}'
    assert [request.body for request in backend.requests] == [ASK]
    assert waiting(bus, 0)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (ModelState("chat-1", State.LOADING, retry_after=7.0), b"is loading"),
        (ModelState("chat-1", State.BACKOFF, "no memory", retry_after=7.0), b"will be started again: no memory"),
        (ModelState("chat-1", State.FAILED, "no memory", fix="get some"), b"by itself: no memory; get some"),
        (ModelState("chat-1", State.STOPPED), b"is stopped"),
    ],
)
def test_nobody_waits_for_one_that_crashed_or_loads_for_the_first_time(
    start: Start, stack: ExitStack, backend: Backend, state: ModelState, words: bytes
) -> None:
    worker, bus = resting(start, stack, *replicas(backend.port))
    tell(bus, state)
    response = worker.chat(ASK)
    assert (response.status, response.get(b"x-vllm-circus-error")) == (503, b"model_not_ready")
    assert words in response.body
    assert response.get(b"retry-after") == (b"7" if state.retry_after else b"60")
    assert bus.wished == []


def test_a_restart_under_load_loses_no_request(start: Start, stack: ExitStack, backend: Backend, held: Held) -> None:
    """In flight to the end, and those that come meanwhile afterwards."""
    worker, bus = resting(start, stack, *replicas(backend.port, max_in_flight=2))
    tell(bus, READY)
    clients = [ask(worker) for _ in range(5)]
    assert all_seen(2, backend)
    assert waiting(bus, 3)
    tell(bus, ModelState("chat-1", State.DRAINING, awaited=True))
    clients += [ask(worker) for _ in range(5)]
    assert waiting(bus, 8)
    held.let(2)
    assert {read_message(client).status for client in clients[:2]} == {200}
    for state in (State.STOPPING, State.QUEUED, State.LOADING):
        tell(bus, ModelState("chat-1", state, awaited=True))
    assert seen(backend) == [2]
    tell(bus, READY)
    held.let(8)
    assert {read_message(client).status for client in clients[2:]} == {200}
    assert held.most == 2


def test_clients_have_their_turns_when_it_is_there(start: Start, stack: ExitStack, backend: Backend) -> None:
    worker, bus = resting(start, stack, *replicas(backend.port, max_in_flight=1))
    names = [b"127.0.0.2"] * 4 + [b"127.0.0.3"] * 2
    clients = []
    for number, name in enumerate(names):
        client = Peer(_from(worker, name.decode()))
        stack.callback(client.close)
        client.send(post(b'{"model":"chat","n":"%b%d"}' % (name[-1:], number)))
        clients.append(client)
        assert waiting(bus, number + 1)
    tell(bus, READY)
    assert {read_message(client).status for client in clients} == {200}
    order = [request.body[-4:-3] for request in backend.requests]
    assert order == [b"2", b"3", b"2", b"3", b"2", b"2"]


def _from(worker: Worker, address: str) -> socket.socket:
    return socket.create_connection(("127.0.0.1", worker.port), timeout=10, source_address=(address, 0))


# not held


def test_when_it_fails_everybody_is_told_why(start: Start, stack: ExitStack, backend: Backend) -> None:
    worker, bus = resting(start, stack, *replicas(backend.port))
    clients = [ask(worker) for _ in range(3)]
    assert waiting(bus, 3)
    tell(bus, ModelState("chat-1", State.BACKOFF, "no memory left", fix="use less", retry_after=20.0))
    for client in clients:
        response = read_message(client)
        assert (response.status, response.get(b"retry-after")) == (503, b"20")
        assert b"has crashed and will be started again: no memory left; use less" in response.body
    assert waiting(bus, 0)


def test_who_leaves_frees_the_place_at_once(start: Start, stack: ExitStack, backend: Backend) -> None:
    worker, bus = resting(start, stack, *replicas(backend.port, queue=Queue(size=1)))
    client = ask(worker)
    assert waiting(bus, 1)
    response = worker.chat(ASK)
    assert (response.status, response.get(b"retry-after")) == (429, b"5")
    client.close()
    assert waiting(bus, 0)
    client = ask(worker)
    assert waiting(bus, 1)
    tell(bus, READY)
    assert read_message(client).status == 200
    assert seen(backend) == [1]


@pytest.mark.parametrize("queue", [Queue(hold=0), Queue(size=0)])
def test_without_holding_it_is_503_at_once_and_the_model_is_wished_for(
    start: Start, stack: ExitStack, backend: Backend, queue: Queue
) -> None:
    worker, bus = resting(start, stack, *replicas(backend.port, queue=queue))
    tell(bus, ModelState("chat-1", State.STOPPED, "nobody asked for it", on_call=True, retry_after=12.3))
    response = worker.chat(ASK)
    assert (response.status, response.get(b"retry-after")) == (503, b"13")
    assert b"The model `chat` rests until it is asked for: nobody asked for it." in response.body
    assert until(lambda: [wish.models for wish in bus.wished] == [("chat-1",)])


def test_who_has_waited_for_as_long_as_it_may_is_told_when_to_come_again(backend: Backend, tmp_path: Path) -> None:
    async def story(inside: Inside) -> None:
        say(inside, ModelState("chat-1", State.LOADING, "shards 3 of 9", awaited=True, retry_after=41.0))
        client = await inside.client(post(ASK))
        assert await comes_true(lambda: inside.relay.fleet.wishes() == ("chat-1",))
        await inside.pass_time(7.0)
        assert inside.relay.counters.models["chat-1"].waiting == 1
        await inside.pass_time(2.0)
        response = await asyncio.to_thread(read_message, client)
        assert (response.status, response.get(b"retry-after")) == (503, b"41")
        assert b"is loading: shards 3 of 9" in response.body
        assert inside.relay.fleet.wishes() == ()

    play(tmp_path, story, *replicas(backend.port, queue=Queue(hold=8, timeout=1)))


def test_the_time_in_the_queue_begins_when_it_is_ready(backend: Backend, tmp_path: Path) -> None:
    async def story(inside: Inside) -> None:
        backend.plays(Held())
        say(inside, RESTING)
        clients = [await inside.client(post(ASK)) for _ in range(2)]
        assert await comes_true(lambda: inside.relay.counters.models["chat-1"].waiting == 2)
        await inside.pass_time(6.0)
        say(inside, READY)
        assert await comes_true(lambda: inside.relay.counters.models["chat-1"].waiting == 1)
        await inside.pass_time(3.0)
        assert inside.relay.counters.models["chat-1"].waiting == 1
        await inside.pass_time(2.0)
        response = await asyncio.to_thread(read_message, clients[1])
        assert (response.status, response.get(b"x-vllm-circus-error")) == (503, b"queue_timeout")

    play(tmp_path, story, *replicas(backend.port, max_in_flight=1, queue=Queue(hold=8, timeout=4)))


def say(inside: Inside, *states: ModelState) -> None:
    sequence = inside.relay.models.sequence + 1 if inside.relay.models else 1
    inside.relay.take_models(ModelsMessage(0.0, 1, sequence, states))


# who else


def test_a_fallback_answers_at_once_and_the_model_is_wished_for(start: Start, stack: ExitStack) -> None:
    big, small = stack.enter_context(engines(2))
    big.answers(ok(b"big"))
    small.answers(ok(b"small"))
    names = ("big", "big-lora")
    plans = a_model("big", big.port, names=names, adapters=(Adapter("big-lora", "/x"),), fallback="small")
    worker = start(plans, a_model("small", small.port))
    bus = stack.enter_context(bus_of(worker))
    asleep = ModelState("big", State.SLEEPING, on_call=True)
    tell(bus, asleep, ModelState("small", State.READY))
    response = worker.chat(b'{"model":"big"}')
    assert (response.body, response.get(b"x-vllm-circus-fallback")) == (b"small", b"small")
    assert until(lambda: [wish.models for wish in bus.wished] == [("big",)])
    adapter = ask(worker, b'{"model":"big-lora"}')
    assert waiting(bus, 1, "big"), "no other model has it"
    tell(bus, asleep, ModelState("small", State.LOADING))
    other = ask(worker, b'{"model":"big"}')
    assert waiting(bus, 2, "big"), "neither is there: it waits for the one that was asked for"
    tell(bus, asleep, ModelState("small", State.READY))
    assert read_message(other).body == b"small", "whichever comes first"
    tell(bus, ModelState("big", State.READY), ModelState("small", State.READY))
    assert read_message(adapter).body == b"big"


def test_a_stored_response_is_waited_for_where_its_engine_sleeps(start: Start, stack: ExitStack) -> None:
    first, second = stack.enter_context(engines(2))
    first.answers(ok(b'{"id":"resp_1"}'))
    worker = start(*replicas(first.port, second.port))
    bus = stack.enter_context(bus_of(worker))
    tell(bus, READY, ModelState("chat-2", State.LOADING))
    assert worker.ask(post(ASK, path=b"/v1/responses")).status == 200
    tell(bus, ModelState("chat-1", State.SLEEPING, on_call=True), ModelState("chat-2", State.READY))
    client = worker.client()
    client.send(get(b"/v1/responses/resp_1"))
    assert waiting(bus, 1)
    assert until(lambda: set(wishes(bus)) == {("chat-1",)})
    tell(bus, READY, ModelState("chat-2", State.READY))
    assert read_message(client).body == b'{"id":"resp_1"}'
    assert seen(first, second) == [2, 0]


def test_an_engine_that_sleeps_is_woken_where_it_may_have_what_is_gone_on_from(start: Start, stack: ExitStack) -> None:
    backends = stack.enter_context(engines(2))
    worker = start(*replicas(*(it.port for it in backends)))
    bus = stack.enter_context(bus_of(worker))
    for it in backends:
        it.answers(ok(b"{}").replace(b"200 OK", b"404 Not Found"))
    tell(bus, READY, ModelState("chat-2", State.SLEEPING, on_call=True, retry_after=3.0))
    response = worker.ask(post(b'{"model":"chat","previous_response_id":"resp_7"}', path=b"/v1/responses"))
    assert (response.status, response.get(b"retry-after")) == (503, b"3")
    assert until(lambda: wishes(bus) == [("chat-2",)])


# what is said


def wishes(bus: Bus) -> list[tuple[str, ...]]:
    return [wish.models for wish in bus.wished if wish.verb == "want"]


def test_a_wish_is_said_at_once_and_then_each_second(start: Start, stack: ExitStack, backend: Backend) -> None:
    worker, bus = resting(start, stack, *replicas(backend.port))
    clients = [ask(worker) for _ in range(20)]
    assert waiting(bus, 20)
    assert until(lambda: len(bus.wished) >= 3)
    assert set(wishes(bus)) == {("chat-1",)}
    tell(bus, READY)
    assert {read_message(client).status for client in clients} == {200}
    said = len(bus.wished)
    assert said <= 8, "not for each request"
    assert worker.chat(ASK).status == 200
    told = len(bus.told)
    assert until(lambda: len(bus.told) >= told + 3)
    assert len(bus.wished) == said, "nobody wishes for what is there"


def _last_is(bus: Bus, name: str) -> bool:
    return wishes(bus)[-1:] == [(name,)]


def test_one_replica_is_wished_for_and_that_is_the_one_that_comes_first(start: Start, stack: ExitStack) -> None:
    backends = stack.enter_context(engines(3))
    worker = start(*replicas(*(it.port for it in backends)))
    bus = stack.enter_context(bus_of(worker))
    rests = [ModelState(f"chat-{n}", State.STOPPED, on_call=True) for n in (1, 2, 3)]
    sleeps = ModelState("chat-2", State.SLEEPING, on_call=True)
    awaited = ModelState("chat-3", State.LOADING, awaited=True)
    client = worker.client()
    for states, name in [
        (rests, "chat-1"),
        ((rests[0], sleeps, rests[2]), "chat-2"),
        ((rests[0], sleeps, awaited), "chat-3"),
    ]:
        tell(bus, *states)
        bus.wished.clear()
        client = ask(worker)
        assert until(partial(_last_is, bus, name)), name
        client.close()
    client = ask(worker)
    tell(bus, rests[0], rests[1], ModelState("chat-3", State.READY))
    assert read_message(client).body == b"2"


def test_a_health_plugin_that_is_started_anew_hears_the_wish(start: Start, stack: ExitStack, backend: Backend) -> None:
    worker, bus = resting(start, stack, *replicas(backend.port))
    client = ask(worker)
    assert until(lambda: bus.wished)
    bus.restart_commands()
    bus.wished.clear()
    assert until(lambda: bus.wished)
    tell(bus, READY)
    assert read_message(client).status == 200


def test_nobody_hears_the_wish_and_nothing_stands_still(start: Start, backend: Backend) -> None:
    """No plugin is there at all: what was told before is believed for a while."""
    other = a_model("other", backend.port)
    worker = start(*replicas(backend.port), other)
    with bus_of(worker) as bus:
        tell(bus, RESTING)
    clients = [ask(worker) for _ in range(50)]
    responses: list[Message] = [worker.chat(b'{"model":"other"}') for _ in range(20)]
    assert {response.status for response in responses} == {200}
    assert len(clients) == 50
