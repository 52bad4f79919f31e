"""Files that run out: idle clients cost one each and give way to requests, and whoever is busy is left alone."""

from __future__ import annotations

import asyncio
import json
import resource
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import uvloop

from tests.proxy.certificates import make_pair
from tests.proxy.conftest import Start, Worker, a_model, a_plan
from tests.proxy.engines import Held, all_seen, nobody, replicas, seen
from tests.proxy.scripted import DEADLINE, Backend, Peer, get, ok, post, read_message, until
from tests.proxy.test_tls import tls_client
from vllm_circus.config.models import Ejection, Limits
from vllm_circus.plan.types import Endpoint, Plan
from vllm_circus.proxy.connection import FIRST_GRACE
from vllm_circus.proxy.descriptors import RESERVED, allowed_files, headroom
from vllm_circus.proxy.downstream import Downstream
from vllm_circus.proxy.keys import Keys
from vllm_circus.proxy.relay import Relay


def chat(model: str) -> bytes:
    return post(b'{"model":"%b","messages":[]}' % model.encode())


CHAT = chat("alpha")
#: Files of a worker in these tests, and how many of them connections may use.
NOFILE = 128
MOST = NOFILE - RESERVED
#: Clients that are let in while they are idle and one connection to an engine is there.
IDLE = MOST - headroom(MOST) - 6


def idle_clients(worker: Worker, held: Held, client: Callable[[Worker], Peer] = Worker.client) -> list[Peer]:
    """Clients that have been answered once, in this order."""
    clients = []
    for _ in range(IDLE):
        clients.append(each := client(worker))
        held.let()
        each.send(CHAT)
        assert read_message(each).status == 200
    return clients


def hold(held: Held, *clients: Peer) -> None:
    """Let each of them ask for what it will wait for, one after another."""
    for client in clients:
        before = held.busy
        client.send(CHAT)
        assert until(lambda before=before: held.busy > before)  # type: ignore[misc]  # mypy knows no defaults of lambdas


def closed(clients: list[Peer]) -> list[int]:
    """Which of them were closed without a byte more."""
    found = [number for number, client in enumerate(clients) if client.ended(0.01)]
    assert not any(clients[number].rest for number in found)
    return found


def test_idle_clients_take_a_file_each_and_no_second_one(start: Start, backend: Backend) -> None:
    worker = start(a_model("alpha", backend.port), nofile=NOFILE)
    held = Held()
    backend.plays(held)
    assert len(idle_clients(worker, held)) > MOST * 3 // 4
    assert b"accepting pauses" not in worker.log.read_bytes()


def test_the_client_that_was_idle_for_longest_gives_way_and_nobody_else(start: Start, backend: Backend) -> None:
    worker = start(a_model("alpha", backend.port), nofile=NOFILE)
    held = Held()
    backend.plays(held)
    clients = idle_clients(worker, held)
    busy, halfway, *idle = clients
    hold(held, busy)
    halfway.send(CHAT[:20])
    some = idle[IDLE - MOST + 1 :]  # as many more as there are files
    hold(held, *some)
    assert closed(clients) == []
    hold(held, idle[10], idle[11])
    assert closed(clients) == [2, 3]
    halfway.send(CHAT[20:])
    assert until(lambda: held.busy == MOST - IDLE + 3)
    assert closed(clients) == [2, 3, 4]
    held.let(held.busy)
    served = [busy, halfway, *some, idle[10], idle[11]]
    assert [read_message(client).status for client in served] == [200] * len(served)
    assert until(lambda: worker.log.read_bytes().count(b"clients that are idle are closed") == 1)


def test_who_finds_all_others_busy_is_told_to_come_again_and_no_engine_hears_of_it(
    start: Start, backend: Backend
) -> None:
    worker = start(a_model("alpha", backend.port), nofile=NOFILE + 1)  # with two for each, one is left
    held = Held()
    backend.plays(held)
    clients = idle_clients(worker, held)
    pairs = (MOST + 1) // 2
    hold(held, *clients[-pairs:])
    assert closed(clients) == list(range(IDLE - pairs - 1))
    last, before = clients[-pairs - 1], seen(backend)
    last.send(CHAT)
    refused = read_message(last)
    assert (refused.status, refused.get(b"retry-after")) == (503, b"1")
    assert refused.get(b"x-vllm-circus-error") == b"overloaded"
    error = json.loads(refused.body)["error"]
    assert (error["type"], error["param"], error["code"]) == ("server_error", None, "overloaded")
    assert seen(backend) == before
    held.let(pairs)
    assert [read_message(client).status for client in clients[-pairs:]] == [200] * pairs
    held.let()
    last.send(CHAT)
    assert read_message(last).status == 200


def test_idle_connections_to_engines_give_way_before_any_client(start: Start, backend: Backend) -> None:
    other = Backend()
    worker = start(a_model("alpha", backend.port), a_model("beta", other.port), nofile=NOFILE)
    held, pooled = Held(), Held()
    backend.plays(held)
    other.plays(pooled)
    clients = idle_clients(worker, held)
    some = clients[: MOST - IDLE - 1]
    for client in some:
        client.send(chat("beta"))
    assert all_seen(len(some), other)
    pooled.let(len(some))
    assert [read_message(client).status for client in some] == [200] * len(some)
    hold(held, *clients[-3:])  # the first has a connection, which was left from before
    assert closed(clients) == []
    assert sum(peer.ended(0.01) for peer in other.connections) >= 2
    held.let(3)
    other.close()


def test_clients_behind_tls_give_way_as_well(start: Start, backend: Backend, short_dir: Path) -> None:
    certificate, key = make_pair(short_dir)
    worker = start(a_model("alpha", backend.port), tls_certificate=str(certificate), tls_key=str(key), nofile=NOFILE)
    held = Held()
    backend.plays(held)
    clients = idle_clients(worker, held, tls_client)
    hold(held, *clients[-(MOST - IDLE) - 5 :])
    assert len(closed(clients)) == 5
    assert b"Traceback" not in worker.log.read_bytes()


def test_accepting_goes_on_when_connections_to_engines_end_though_no_client_leaves(
    start: Start, backend: Backend
) -> None:
    worker = start(a_model("alpha", backend.port), nofile=NOFILE)
    held = Held(ok(b"{}", b"connection: close"))
    backend.plays(held)
    number = IDLE * 4 // 5
    clients = [worker.client() for _ in range(number)]
    for client in clients:
        client.send(CHAT)
    assert until(lambda: b"accepting pauses" in worker.log.read_bytes())
    held.let(number)
    assert [read_message(client).status for client in clients] == [200] * number


def test_clients_that_come_all_at_once_wait_at_the_door_rather_than_be_refused(start: Start, backend: Backend) -> None:
    worker = start(a_model("alpha", backend.port), nofile=NOFILE)
    held = Held()
    backend.plays(held)
    clients = [worker.client() for _ in range(IDLE - 1)]
    for client in clients:
        client.send(CHAT)
    assert until(lambda: held.busy > MOST // 3)
    held.let(len(clients))
    assert [read_message(client).status for client in clients] == [200] * len(clients)


def test_an_engine_is_not_blamed_where_the_kernel_gives_no_file(start: Start, backend: Backend) -> None:
    worker = start(a_model("alpha", backend.port))
    client = worker.client()
    client.send(get(b"/nowhere"))
    assert read_message(client).status == 404
    pid, (soft, hard) = worker.process.pid, resource.prlimit(worker.process.pid, resource.RLIMIT_NOFILE)
    # of the standard streams none is free, whatever the worker opens and closes meanwhile
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, hard))
    for _ in range(3):
        client.send(CHAT)
        assert read_message(client).get(b"x-vllm-circus-error") == b"overloaded"
    told = b"no connection to an engine can be opened: Too many open files"
    assert until(lambda: worker.log.read_bytes().count(told) == 1)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
    client.send(CHAT)
    assert read_message(client).status == 200


def test_few_files_are_spoken_of_only_where_the_clients_do_not_fit(start: Start, backend: Backend) -> None:
    limits = Limits(max_connections=1000)
    assert b"files" not in start(a_model("alpha", backend.port), limits=limits, nofile=1500).log.read_bytes()
    said = start(a_model("alpha", backend.port), limits=limits, nofile=1000).log.read_bytes()
    assert b"only 1000 files may be open: connections are limited to 819 instead of 1000" in said


def test_the_limit_of_open_files_is_raised_only_where_it_is_too_low() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert allowed_files(10) == (sys.maxsize if soft == resource.RLIM_INFINITY else soft - RESERVED)
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (soft, hard)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def in_process(play: Callable[[Relay, Clock], Awaitable[None]], plan: Plan, files: int = 100) -> None:
    """Run this with a relay in this process, on the loop that workers have."""

    async def run() -> None:
        clock = Clock()
        loop, control = asyncio.get_running_loop(), Endpoint("localhost", 0, "/nowhere")
        relay = Relay(plan, Keys(), loop=loop, control=control, clock=clock, files=files)
        await play(relay, clock)
        relay.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


async def connected(relay: Relay) -> tuple[Downstream, socket.socket]:
    """A client's connection, and its other end."""
    ours, theirs = socket.socketpair()
    theirs.settimeout(DEADLINE)
    down = Downstream(relay)
    relay.poller.adopt(ours, down)
    return down, theirs


def test_who_has_just_come_is_left_a_moment_for_its_first_request(tmp_path: Path) -> None:
    async def play(relay: Relay, clock: Clock) -> None:
        down, client = await connected(relay)
        assert down.idle_since(clock.now) is None
        clock.now += FIRST_GRACE
        assert down.idle_since(clock.now) == clock.now - FIRST_GRACE
        client.close()

    in_process(play, a_plan(tmp_path, a_model("alpha", 1)))


def test_who_was_answered_is_idle_from_then_on(tmp_path: Path) -> None:
    async def play(relay: Relay, clock: Clock) -> None:
        down, client = await connected(relay)
        clock.now += 5
        client.send(get(b"/nowhere"))
        await relay.loop.run_in_executor(None, client.recv, 65536)
        assert down.idle_since(clock.now) == clock.now
        client.close()

    in_process(play, a_plan(tmp_path, a_model("alpha", 1)))


def test_a_request_of_which_a_byte_has_come_is_not_thrown_away(tmp_path: Path) -> None:
    async def play(relay: Relay, clock: Clock) -> None:
        down, client = await connected(relay)
        clock.now += FIRST_GRACE
        client.send(b"G")
        assert down.idle_since(clock.now) is not None  # nobody has read it yet …
        assert not down.give_way()  # … and so it is looked for
        await until_true(lambda: down.idle_since(clock.now) is None)
        client.close()

    in_process(play, a_plan(tmp_path, a_model("alpha", 1)))


async def until_true(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not condition():  # noqa: ASYNC110 - what is waited for are the loop's own turns
            await asyncio.sleep(0.001)


def test_no_file_stays_counted_however_a_connection_ends(tmp_path: Path) -> None:
    def closes_at_once(own: Backend, peer: Peer) -> None:
        peer.close()

    engine, rude = Backend(), Backend()
    rude.plays(closes_at_once)
    requests = [
        *map(chat, ("alpha", "rude", "gone", "chat")),
        *map(get, (b"/v1/responses/resp_1?model=chat", b"/v1/responses/resp_1", b"/health")),
    ]

    async def play(relay: Relay, clock: Clock) -> None:
        for data in requests * 3:
            _, client = await connected(relay)
            client.send(data)
            await relay.loop.run_in_executor(None, client.recv, 65536)
            client.close()
        for turns in range(6):  # who leaves while its connection to the engine comes about
            for data in requests:
                down, client = await connected(relay)
                down.data_received(data)
                for _ in range(turns):
                    await asyncio.sleep(0)
                down.abort()
                client.close()
        await until_true(lambda: not relay.connections)
        clock.now += 60
        relay.sweep()
        await until_true(lambda: relay.descriptors.used == 0)

    with nobody() as port:
        models = (a_model("alpha", engine.port), a_model("rude", rude.port), a_model("gone", port))
        in_process(play, a_plan(tmp_path, *models, *replicas(engine.port, rude.port)))
    engine.close()
    rude.close()


def test_no_file_stays_counted_of_those_that_wait_for_a_connection(tmp_path: Path) -> None:
    async def play(relay: Relay, clock: Clock) -> None:
        waiting = [await connected(relay) for _ in range(50)]
        for down, _ in waiting:
            down.data_received(chat("alpha"))
        assert relay.descriptors.used == 100
        await asyncio.sleep(0)
        for down, client in waiting:  # while some are being opened and the others have not had their turn
            down.abort()
            client.close()
        await until_true(lambda: relay.descriptors.used == 0)

    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, socket.create_connection(full.getsockname()):
        in_process(play, a_plan(tmp_path, a_model("alpha", full.getsockname()[1])))


def test_a_replica_is_not_blamed_for_a_request_that_had_no_file_to_go_with(tmp_path: Path) -> None:
    async def play(relay: Relay, clock: Clock) -> None:
        _, client = await connected(relay)
        _, newcomer = await connected(relay)
        client.send(chat("chat"))
        answer = await relay.loop.run_in_executor(None, client.recv, 65536)
        assert b"\r\nx-vllm-circus-error: overloaded\r\n" in answer
        assert not any(backend.ejector.marked or backend.load for backend in relay.backends.values())
        client.close()
        newcomer.close()

    in_process(play, a_plan(tmp_path, *replicas(1, 2, ejection=Ejection(failures=1))), files=2)


@pytest.mark.parametrize(("most", "left"), [(4, 1), (64, 8), (1 << 20, 256)])
def test_clients_leave_some_files_to_engines(most: int, left: int) -> None:
    assert headroom(most) == left
