"""Waiting for a place at an engine: bounded, fair, and left without a trace."""

from __future__ import annotations

import random
import select
import threading
from pathlib import Path

import pytest

from tests.proxy.bus import Bus, bus_of
from tests.proxy.conftest import Start, Worker
from tests.proxy.engines import ASK, Held, all_seen, ask, engines, nobody, replicas, seen
from tests.proxy.scripted import DEADLINE, Backend, Message, Peer, ok, post, read_message, until
from vllm_circus.bus.messages import ModelState
from vllm_circus.config.models import Queue
from vllm_circus.lifecycle.states import State

LARGE = b'{"model":"chat","pad":"' + b"x" * 2_000_000 + b'"}'


def error_code(response: Message) -> bytes | None:
    return response.get(b"x-vllm-circus-error")


@pytest.fixture
def held(backend: Backend) -> Held:
    script = Held()
    backend.plays(script)
    return script


@pytest.fixture
def keys(short_dir: Path) -> Path:
    """A file with the keys of two clients."""
    file = short_dir / "keys"
    file.write_text("key-a\nkey-b\n")
    file.chmod(0o600)
    return file


def read_first(clients: list[Peer]) -> Message:
    """The first answer to any of them, who is no longer among them afterwards."""
    ready, _, _ = select.select([client.sock for client in clients], [], [], DEADLINE)
    [client] = [client for client in clients if client.sock in ready]
    clients.remove(client)
    return read_message(client)


def waiting(bus: Bus, number: int) -> bool:
    """Whether so many wait, or soon do."""
    return until(lambda: bus.told and bus.told[-1].models["chat-1"].waiting == number)


def refused_while_full(worker: Worker) -> bool:
    """Whether all places are taken, and all in the queue."""
    return until(lambda: worker.chat(ASK).status == 429)


# how many


def test_an_engine_never_has_more_than_it_may(start: Start, backend: Backend, held: Held) -> None:
    worker = start(*replicas(backend.port, max_in_flight=3))
    clients = [ask(worker) for _ in range(20)]
    for done in range(20):
        assert all_seen(min(done + 3, 20), backend)
        held.let()
    assert {read_message(client).status for client in clients} == {200}
    assert held.most == 3


def test_replicas_share_a_queue_and_each_has_its_own_limit(start: Start) -> None:
    with engines(2) as (first, second):
        scripts = Held(), Held()
        first.plays(scripts[0])
        second.plays(scripts[1])
        worker = start(*replicas(first.port, second.port, max_in_flight=2))
        clients = [ask(worker) for _ in range(8)]
        assert until(lambda: seen(first, second) == [2, 2])
        scripts[0].let(4)
        assert until(lambda: seen(first, second) == [6, 2]), "who is free takes who waits"
        scripts[0].let(2)
        scripts[1].let(2)
        assert {read_message(client).status for client in clients} == {200}
        assert [script.most for script in scripts] == [2, 2]


def test_keys_take_turns(start: Start, backend: Backend, held: Held, keys: Path) -> None:
    worker = start(*replicas(backend.port, max_in_flight=1), keys_file=str(keys))
    with bus_of(worker) as bus:
        clients = [ask(worker, b'{"model":"chat","n":"a%d"}' % n, b"X-Api-Key: key-a") for n in range(5)]
        assert waiting(bus, 4)
        clients += [ask(worker, b'{"model":"chat","n":"b%d"}' % n, b"Authorization: Bearer key-b") for n in range(2)]
        assert waiting(bus, 6)
    held.let(7)
    assert {read_message(client).status for client in clients} == {200}
    order = [request.body[-4:-2] for request in backend.requests]
    assert [name for name in order if name.startswith(b"b")] == [b"b0", b"b1"]
    assert order.index(b"b1") <= 4, "who asks for little does not wait for all of who asks for much"


# who is not taken


def test_one_more_than_may_wait_is_429(start: Start, backend: Backend, held: Held) -> None:
    worker = start(*replicas(backend.port, max_in_flight=1, queue=Queue(size=2)))
    clients = [ask(worker) for _ in range(3)]
    assert refused_while_full(worker)
    response = worker.chat(ASK)
    assert (response.status, error_code(response), response.get(b"retry-after")) == (429, b"queue_full", b"1")
    assert b'"rate_limit_error"' in response.body
    held.let(3)
    assert {read_message(client).status for client in clients} == {200}
    assert len(backend.requests) == 3


def test_who_fills_the_queue_makes_room_for_another(start: Start, backend: Backend, held: Held, keys: Path) -> None:
    """Its newest request is told to come again, and the other client's is served in turn."""
    worker = start(*replicas(backend.port, max_in_flight=1, queue=Queue(size=3)), keys_file=str(keys))
    with bus_of(worker) as bus:
        hog = [ask(worker, b'{"model":"chat","n":"a%d"}' % n, b"X-Api-Key: key-a") for n in range(4)]
        assert waiting(bus, 3)
        assert worker.chat(ASK, b"X-Api-Key: key-a").status == 429
        other = ask(worker, b'{"model":"chat","n":"b0"}', b"Authorization: Bearer key-b")
        response = read_first(hog)
        assert (response.status, error_code(response), response.get(b"retry-after")) == (429, b"queue_full", b"1")
        assert waiting(bus, 3)
    held.let(4)
    assert {read_message(client).status for client in (*hog, other)} == {200}
    assert len(backend.requests) == 4


@pytest.mark.parametrize("is_keyed", [False, True])
def test_nobody_gets_a_second_share_by_another_spelling(
    start: Start, backend: Backend, held: Held, keys: Path, is_keyed: bool
) -> None:
    """Without `proxy.keys` nobody checks a key, so whoever comes from one address is one client."""
    keys_file = str(keys) if is_keyed else None
    worker = start(*replicas(backend.port, max_in_flight=1, queue=Queue(size=2)), keys_file=keys_file)
    with bus_of(worker) as bus:
        clients = [ask(worker, ASK, b"Authorization: Bearer key-a") for _ in range(3)]
        assert waiting(bus, 2)
        for line in (b"Authorization: bearer   key-a", b"X-Api-Key: key-a", b"X-Api-Key: other"):
            assert worker.chat(ASK, line).status == (401 if is_keyed and b"other" in line else 429)
    held.let(3)
    assert {read_message(client).status for client in clients} == {200}


def test_it_is_said_in_anthropics_form_as_well(start: Start, backend: Backend, held: Held) -> None:
    worker = start(*replicas(backend.port, max_in_flight=1, queue=Queue(size=0)))
    client = ask(worker)
    assert all_seen(1, backend)
    response = worker.ask(post(ASK, path=b"/v1/messages"))
    assert (response.status, response.get(b"retry-after")) == (429, b"1")
    assert b'"type": "rate_limit_error"' in response.body
    held.let()
    assert read_message(client).status == 200


def test_who_waits_is_served_while_the_worker_drains(start: Start, backend: Backend, held: Held) -> None:
    worker = start(*replicas(backend.port, max_in_flight=1))
    with bus_of(worker) as bus:
        clients = [ask(worker) for _ in range(4)]
        assert waiting(bus, 3)
        worker.process.terminate()
        assert until(lambda: b"drains" in worker.log.read_bytes())
    held.let(4)
    assert {read_message(client).status for client in clients} == {200}
    assert worker.process.wait(10) == 0


def test_a_queue_of_nobody_refuses_at_once(start: Start, backend: Backend, held: Held) -> None:
    worker = start(*replicas(backend.port, max_in_flight=1, queue=Queue(size=0)))
    client = ask(worker)
    assert all_seen(1, backend)
    assert worker.chat(ASK).status == 429
    held.let(2)
    assert read_message(client).status == worker.chat(ASK).status == 200


@pytest.mark.parametrize("size", [0, 300_000, 1_000_000])
def test_who_waits_too_long_is_503_and_never_seen(start: Start, backend: Backend, held: Held, size: int) -> None:
    """Whole requests, and large bodies of which no more is read meanwhile."""
    worker = start(*replicas(backend.port, max_in_flight=1, queue=Queue(timeout=0.3)))
    client = ask(worker)
    assert all_seen(1, backend)
    other = worker.client()
    other.send(post(LARGE)[:size] if size else post(ASK))
    response = read_message(other)
    assert (response.status, error_code(response), response.get(b"retry-after")) == (503, b"queue_timeout", b"1")
    held.let(2)
    assert read_message(client).status == worker.chat(ASK).status == 200
    assert [request.body for request in backend.requests] == [ASK, ASK]


def test_who_leaves_frees_the_place_and_is_never_seen(start: Start, backend: Backend, held: Held) -> None:
    worker = start(*replicas(backend.port, max_in_flight=1, queue=Queue(size=1)))
    client = ask(worker)
    assert all_seen(1, backend)
    leaving = ask(worker, b'{"model":"chat","who":"leaves"}')
    assert refused_while_full(worker)
    leaving.reset()
    stays = None
    while stays is None or b"429" in stays.rest:  # until the place is free
        stays = ask(worker, b'{"model":"chat","who":"stays"}')
        stays.sock.settimeout(0.1)
        try:
            stays.rest = stays.sock.recv(65536)
        except TimeoutError:
            break
    held.let(2)
    stays.sock.settimeout(10)
    assert read_message(client).status == read_message(stays).status == 200
    assert [b"leaves" in request.body for request in backend.requests] == [False, False]


def test_who_waits_is_told_when_the_model_goes_away(start: Start, backend: Backend, held: Held) -> None:
    worker = start(*replicas(backend.port, max_in_flight=1, names=("chat",)))
    with bus_of(worker) as bus:
        client = ask(worker)
        assert all_seen(1, backend)
        others = [ask(worker) for _ in range(3)]
        assert waiting(bus, 3)
        assert bus.acted_on(bus.says(ModelState("chat-1", State.DRAINING)))
        for one in others:
            response = read_message(one)
            assert (response.status, error_code(response)) == (503, b"model_not_ready")
        assert waiting(bus, 0)
        assert bus.told[-1].models["chat-1"].in_flight == 1, "who was sent there is answered"
        held.let()
        assert read_message(client).status == 200
        assert until(lambda: bus.told[-1].models["chat-1"].in_flight == 0)
    assert len(backend.requests) == 1


def test_who_waits_is_told_when_the_engine_is_gone(start: Start, backend: Backend, held: Held) -> None:
    worker = start(*replicas(backend.port, max_in_flight=1))
    client = ask(worker)
    assert all_seen(1, backend)
    others = [ask(worker) for _ in range(3)]
    backend.close()
    assert read_message(client).status == 502
    assert {read_message(one).status for one in others} == {503}


# large bodies


def test_a_large_body_that_waited_goes_on_over_a_kept_connection(start: Start, backend: Backend, held: Held) -> None:
    """Nothing of it is read while it waits: it has to be read on when its turn comes."""
    worker = start(*replicas(backend.port, max_in_flight=1))
    client = ask(worker)
    assert all_seen(1, backend)
    other = worker.client()
    sending = threading.Thread(target=other.send, args=(post(LARGE),))
    sending.start()
    assert worker.get(b"/health").status == 200
    held.let(2)
    assert read_message(client).status == read_message(other).status == 200
    sending.join()
    assert [len(request.body) for request in backend.requests] == [len(ASK), len(LARGE)]


def test_a_slow_engine_slows_an_upload_down_over_a_new_connection(start: Start, backend: Backend) -> None:
    """Reading on must not undo the pause for an engine that takes nothing yet."""
    taking = threading.Event()

    def script(backend: Backend, peer: Peer) -> None:
        peer.read_until(b"\r\n\r\n")
        taking.wait(10)
        left = len(body) - len(peer.rest)
        while left:
            left -= len(peer.sock.recv(1 << 20))
        peer.send(ok(b"{}"))

    body = b'{"model":"chat","pad":"' + b"x" * 60_000_000 + b'"}'
    worker = start(*replicas(backend.port))
    backend.plays(script)
    before = worker.memory()
    client = worker.client()
    sending = threading.Thread(target=client.send, args=(post(body),))
    sending.start()
    sending.join(1.5)
    assert sending.is_alive()
    assert worker.memory() - before < 24 << 20
    taking.set()
    assert read_message(client).status == 200
    sending.join()


# chaos


class Moody:
    """An engine that answers, fails, hangs up in an answer or before it."""

    def __init__(self) -> None:
        self._rolls = random.Random(1)

    def __call__(self, backend: Backend, peer: Peer) -> None:
        while True:
            backend.read_request(peer)
            doing = self._rolls.random()
            if doing < 0.1:
                peer.reset()
            elif doing < 0.2:
                peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx")
                peer.close()
            elif doing < 0.3:
                peer.send(b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n")
            else:
                peer.send(ok(b"{}"))


def come_and_go(worker: Worker, seed: int) -> None:
    """Clients that stop in the middle, leave at once, wait a little, or stay."""
    rolls = random.Random(seed)
    for _ in range(12):
        client = worker.client()
        message = post(LARGE[:400_000] + b'"}' if rolls.random() < 0.2 else ASK)
        client.send(message[: rolls.choice([len(message)] * 3 + [len(message) // 2])])
        doing = rolls.random()
        if doing < 0.3:
            client.reset()
        elif doing < 0.8:
            client.ended(timeout=0.05)
            client.close()


def test_after_any_chaos_nothing_is_counted_any_more(start: Start) -> None:
    with engines(3) as made, nobody() as dead:
        for engine in made:
            engine.plays(Moody())
        ports = (dead, *(engine.port for engine in made))
        worker = start(*replicas(*ports, max_in_flight=2, queue=Queue(size=4, timeout=0.5)))
        with bus_of(worker) as bus:
            threads = [threading.Thread(target=come_and_go, args=(worker, seed)) for seed in range(6)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            worker.hang_up()
            assert bus.acted_on(bus.says(ModelState("chat-1", State.READY)))
            assert until(lambda: not any(told.in_flight or told.waiting for told in bus.told[-1].models.values()))
            for engine in made:
                engine.answers(ok(b"{}"))
            assert until(lambda: worker.chat(ASK).status == 200)
        assert worker.stop() == 0
        assert b"Traceback" not in worker.log.read_bytes()
