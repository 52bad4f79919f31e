"""A new plan for a worker that serves: nobody notices but who asks for what changed."""

from __future__ import annotations

import asyncio
import gc
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.proxy.bus import Bus, bus_of
from tests.proxy.conftest import Start, Worker, a_model
from tests.proxy.engines import ASK, Held, all_seen, ask, engines, nobody, replicas
from tests.proxy.inside import Inside, comes_true, play
from tests.proxy.scripted import DONE, SSE_HEAD, Backend, Peer, event, get, ok, post, read_message, until
from vllm_circus.bus.messages import ModelsMessage, ModelState
from vllm_circus.config.models import Limits, Queue, RequestRules
from vllm_circus.lifecycle.states import State
from vllm_circus.plan.types import Endpoint, ModelPlan, Plan, digest_of, dump_plan
from vllm_circus.proxy.head import RequestHead
from vllm_circus.proxy.keys import Keys

READY = ModelState("chat-1", State.READY)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


def renewed(plan: Plan, *models: ModelPlan, **proxy: Any) -> Plan:
    return replace(plan, models=models or plan.models, proxy=replace(plan.proxy, **proxy))


def reload(worker: Worker, bus: Bus, plan: Plan, *states: ModelState) -> None:
    """The plan is there, and the worker acts on it."""
    data = dump_plan(plan)
    worker.plan.instance.plan.write_bytes(data)
    assert bus.acted_on(bus.says(*states, plan=digest_of(data)))


def said(worker: Worker, words: bytes, times: int) -> bool:
    """Whether its log has these words so many times; it is written a few times a second."""
    return until(lambda: worker.log.read_bytes().count(words) == times)


@contextmanager
def load(worker: Worker, *models: str, clients: int = 4) -> Iterator[list[bytes]]:
    """Requests for these models, one after the other from each client; what was not 200 is in the list at the end."""
    failed: list[bytes] = []
    ended = threading.Event()
    done = [0] * clients

    def run(number: int) -> None:
        name = models[number % len(models)]
        with socket.create_connection(("127.0.0.1", worker.port), timeout=10) as sock:
            peer = Peer(sock)
            while not ended.is_set():
                peer.send(post(b'{"model":"%b","stream":true}' % name.encode()))
                response = read_message(peer)
                if response.status != 200 or not response.body.endswith(b"[DONE]\n\n"):
                    failed.append(response.start + response.body)
                done[number] += 1

    threads = [threading.Thread(target=run, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield failed
        before = list(done)
        assert until(lambda: all(now >= then + 5 for now, then in zip(done, before, strict=True)))
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def streaming(backend: Backend, peer: Peer) -> None:
    while True:
        backend.read_request(peer)
        peer.send(SSE_HEAD)
        for number in range(5):
            peer.send(event(number))
        peer.send(DONE)


def test_models_come_go_and_change_their_names_under_load(start: Start, stack: ExitStack) -> None:
    backends = stack.enter_context(engines(4))
    for backend in backends:
        backend.plays(streaming)
    stays, renamed, goes, comes = (it.port for it in backends)
    worker = start(a_model("stays", stays), a_model("renamed", renamed, aliases=("old",)), a_model("goes", goes))
    bus = stack.enter_context(bus_of(worker))
    states = [ModelState(name, State.READY) for name in ("stays", "renamed", "goes", "comes")]
    with load(worker, "stays", "renamed") as failed:
        assert worker.chat(b'{"model":"goes"}').status == worker.chat(b'{"model":"old"}').status == 200
        for _ in range(5):
            new = a_model("stays", stays), a_model("renamed", renamed, aliases=("new",)), a_model("comes", comes)
            reload(worker, bus, renewed(worker.plan, *new), *states[:2], states[3])
            assert worker.chat(b'{"model":"comes"}').status == 200
            assert worker.chat(b'{"model":"goes"}').status == worker.chat(b'{"model":"old"}').status == 404
            assert [b'"new"' in worker.get(path).body for path in (b"/v1/models", b"/proxy/registry")] == [True, True]
            reload(worker, bus, worker.plan, *states[:3])
            assert worker.chat(b'{"model":"old"}').status == 200
            assert worker.chat(b'{"model":"comes"}').status == 404
    assert failed == []
    assert said(worker, b"goes by a new plan", 10)


def test_what_is_in_flight_ends_as_it_began_and_stays_in_the_sums(start: Start, stack: ExitStack) -> None:
    first, second = stack.enter_context(engines(2))
    go_on = threading.Event()

    def slow(backend: Backend, peer: Peer) -> None:
        backend.read_request(peer)
        peer.send(SSE_HEAD + event(1))
        assert go_on.wait(10)
        peer.send(event(2) + DONE)

    first.plays(slow)
    worker = start(a_model("goes", first.port), a_model("stays", second.port))
    bus = stack.enter_context(bus_of(worker))
    client = ask(worker, b'{"model":"goes","stream":true}')
    assert client.read_until(b'"1"')
    reload(worker, bus, renewed(worker.plan, worker.plan.models[1]), ModelState("stays", State.READY))
    assert worker.chat(b'{"model":"goes"}').status == 404
    assert until(lambda: bus.told[-1].models["goes"].in_flight == 1)
    go_on.set()
    assert client.read_until(b"0\r\n\r\n").endswith(DONE)
    assert until(lambda: bus.told[-1].models["goes"].statuses == {200: 1})
    assert first.connections[0].ended(), "its engine is asked for nothing more"


def test_who_waits_stays_in_the_line_or_hears_that_the_model_is_gone(start: Start, stack: ExitStack) -> None:
    backend, other = stack.enter_context(engines(2))
    held = Held()
    backend.plays(held)
    before = replicas(backend.port, max_in_flight=1, names=("chat", "moves", "goes"))
    worker = start(*before, a_model("other", other.port))
    bus = stack.enter_context(bus_of(worker))
    clients = [ask(worker, b'{"model":"%b"}' % name) for name in (b"chat", b"chat", b"moves", b"goes", b"chat")]
    assert until(lambda: bus.told and bus.told[-1].models["chat-1"].waiting == 4)
    after = replicas(backend.port, max_in_flight=1, queue=Queue(size=1))
    new = renewed(worker.plan, *after, a_model("other", other.port, aliases=("moves",)))
    reload(worker, bus, new, READY, ModelState("other", State.READY))
    assert read_message(clients[2]).body == b"1"
    assert read_message(clients[3]).status == 404
    assert worker.chat(ASK).status == 429, "the queue is shorter now, and nobody had to leave it"
    assert held.most == 1
    held.let(3)
    assert {read_message(clients[number]).status for number in (0, 1, 4)} == {200}
    assert until(lambda: bus.told[-1].models["chat-1"].waiting == 0)


def test_a_higher_limit_lets_in_who_waits(start: Start, stack: ExitStack, backend: Backend) -> None:
    held = Held()
    backend.plays(held)
    worker = start(*replicas(backend.port, max_in_flight=1))
    bus = stack.enter_context(bus_of(worker))
    clients = [ask(worker) for _ in range(6)]
    assert all_seen(1, backend)
    reload(worker, bus, renewed(worker.plan, *replicas(backend.port, max_in_flight=4)), READY)
    assert all_seen(4, backend)
    reload(worker, bus, renewed(worker.plan, *replicas(backend.port)), READY)
    assert all_seen(6, backend)
    held.let(6)
    assert {read_message(client).status for client in clients} == {200}


def test_replicas_come_and_go(start: Start, stack: ExitStack) -> None:
    first, second = stack.enter_context(engines(2))
    worker = start(*replicas(first.port))
    bus = stack.enter_context(bus_of(worker))
    both = READY, ModelState("chat-2", State.READY)
    reload(worker, bus, renewed(worker.plan, *replicas(first.port, second.port)), *both)
    assert {worker.chat(ASK).body for _ in range(4)} == {b"0", b"1"}
    reload(worker, bus, renewed(worker.plan, *replicas(first.port)), READY)
    assert {worker.chat(ASK).body for _ in range(4)} == {b"0"}


def test_keys_origins_limits_rules_and_the_log_change(start: Start, stack: ExitStack, backend: Backend) -> None:
    keys = stack.enter_context(_file_of_keys("first-key-0123456789"))
    worker = start(*replicas(backend.port), keys_file=str(keys), cors=("https://a.example",))
    bus = stack.enter_context(bus_of(worker))
    with_key = b"Authorization: Bearer first-key-0123456789", b"Origin: https://b.example"
    assert worker.chat(ASK, *with_key).get(b"access-control-allow-origin") is None
    client = worker.client()
    client.send(post(ASK, *with_key))
    assert read_message(client).status == 200
    keys.write_text("second-key-0123456789\n")
    ruled = replicas(backend.port, request=RequestRules(defaults={"top_k": 5}))
    changes = {"cors": ("https://b.example",), "limits": Limits(max_body_bytes=2000), "request_logging": True}
    reload(worker, bus, renewed(worker.plan, *ruled, default_model="chat", **changes), READY)
    client.send(post(ASK, *with_key))
    assert read_message(client).status == 401
    now = b"Authorization: Bearer second-key-0123456789", b"Origin: https://b.example"
    response = worker.chat(ASK, *now)
    assert (response.status, response.get(b"access-control-allow-origin")) == (200, b"https://b.example")
    assert backend.requests[-1].body == b'{"model":"chat","top_k":5}'
    assert worker.chat(b'{"model":"chat","pad":"%b"}' % (b"x" * 3000), *now).status == 413
    assert worker.chat(b"{}", *now).status == 200
    assert until(lambda: b"model=chat engine=chat-" in worker.log.read_bytes())


def test_of_what_was_read_before_nothing_is_kept(short_dir: Path, backend: Backend) -> None:
    def heads() -> list[RequestHead]:
        made = (one for one in gc.get_objects() if isinstance(one, RequestHead))
        return [head for head in made if head.read.get(b"authorization") == b"Bearer gone"]

    async def story(inside: Inside) -> None:
        client = await inside.client(post(ASK, b"Authorization: Bearer gone"))
        assert (await asyncio.to_thread(read_message, client)).status == 200
        assert heads()
        inside.relay.take_plan(inside.relay.plan, Keys())
        assert not heads(), "the connection is idle, and goes on"

    play(short_dir, story, *replicas(backend.port))


@contextmanager
def _file_of_keys(key: str) -> Iterator[Path]:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "keys"
        path.write_text(key + "\n")
        path.chmod(0o600)
        yield path


def test_what_cannot_be_read_is_said_once_and_changes_nothing(start: Start, stack: ExitStack, backend: Backend) -> None:
    worker = start(*replicas(backend.port))
    bus = stack.enter_context(bus_of(worker))
    worker.plan.instance.plan.write_bytes(b"{")
    for _ in range(3):
        assert bus.acted_on(bus.says(READY, plan="new"))
    assert worker.chat(ASK).status == 200
    assert said(worker, b"the old one stays", 1)
    without = renewed(worker.plan, keys_file="/nowhere/keys")
    reload(worker, bus, without, READY)
    assert worker.chat(ASK).status == 200
    assert said(worker, b"the old one stays", 2)
    reload(worker, bus, renewed(worker.plan, *replicas(backend.port, names=("chat", "other"))), READY)
    assert worker.chat(b'{"model":"other"}').status == 200
    assert said(worker, b"goes by a new plan", 1)


def test_what_is_decided_at_the_start_stays_and_is_said(start: Start, stack: ExitStack, backend: Backend) -> None:
    worker = start(*replicas(backend.port))
    bus = stack.enter_context(bus_of(worker))
    reload(worker, bus, renewed(worker.plan, port=1, workers=4), READY)
    assert worker.chat(ASK).status == 200
    assert said(worker, b"the new plan's proxy.port, proxy.workers needs the set to be started anew", 1)


def test_keys_that_move_to_a_variable_stay_where_they_were(start: Start, stack: ExitStack, backend: Backend) -> None:
    keys = stack.enter_context(_file_of_keys("first-key-0123456789"))
    worker = start(*replicas(backend.port), keys_file=str(keys))
    bus = stack.enter_context(bus_of(worker))
    reload(worker, bus, renewed(worker.plan, keys_file=None, keys_env="NOT_SET"), READY)
    assert worker.chat(ASK).status == 401
    assert worker.chat(ASK, b"Authorization: Bearer first-key-0123456789").status == 200
    assert said(worker, b"the new plan's proxy.keys_file, proxy.keys_env needs the set to be started anew", 1)


def test_a_worker_that_is_ahead_of_the_health_plugin_waits_for_it(start: Start, backend: Backend) -> None:
    worker = start(*replicas(backend.port))
    with bus_of(worker) as bus:
        assert bus.acted_on(bus.says(READY, plan="the one before"))
    assert worker.stop() == 0
    assert b"plan" not in worker.log.read_bytes()


def test_an_engine_is_asked_where_it_was_started_until_it_is_another_process(tmp_path: Path) -> None:
    def states(pid: int | None, state: State, sequence: int) -> ModelsMessage:
        return ModelsMessage(0.0, 1, sequence, (ModelState("alpha", state, pid=pid),))

    async def told(inside: Inside) -> bytes:
        client = await inside.client(post(b'{"model":"alpha"}'))
        return (await asyncio.to_thread(read_message, client)).body

    with engines(2) as (here, there):

        async def story(inside: Inside) -> None:
            relay, model = inside.relay, inside.relay.plan.models[0]
            relay.take_models(states(7, State.READY, 1))
            moved = replace(model, endpoint=Endpoint("127.0.0.1", there.port))
            relay.take_plan(renewed(relay.plan, moved), Keys(), states(7, State.READY, 2))
            relay.take_models(states(7, State.READY, 2))
            assert await told(inside) == b"0"
            relay.take_models(states(7, State.STOPPING, 3))
            relay.take_models(states(8, State.LOADING, 4))
            relay.take_models(states(8, State.READY, 5))
            assert await told(inside) == b"1"
            assert await comes_true(lambda: here.connections[0].ended(0.01))
            assert relay.descriptors.engines == 1

        play(tmp_path, story, a_model("alpha", here.port))


def test_who_waits_for_a_model_that_goes_before_it_came_is_told_so(start: Start, stack: ExitStack) -> None:
    (backend,) = stack.enter_context(engines(1))
    dead = stack.enter_context(nobody())
    asleep = ModelState("chat-1", State.SLEEPING, on_call=True)
    worker = start(*replicas(dead), a_model("other", backend.port))
    bus = stack.enter_context(bus_of(worker))
    assert bus.acted_on(bus.says(asleep, ModelState("other", State.READY)))
    clients = [ask(worker) for _ in range(3)]
    assert until(lambda: bus.told[-1].models["chat-1"].waiting == 3)
    reload(worker, bus, renewed(worker.plan, worker.plan.models[1]), ModelState("other", State.READY))
    assert {read_message(client).status for client in clients} == {404}
    assert worker.get(b"/health").status == 200
    assert worker.ask(get(b"/v1/models/chat")).status == 404
    assert worker.ask(post(b"{}")).body == ok(b"0")[-1:], "the only one is the default now"
