"""Several engines of one model: who gets a request, who is left alone, and what is never sent twice."""

from __future__ import annotations

import socket
from contextlib import ExitStack, suppress

import pytest

from tests.proxy.bus import bus_of
from tests.proxy.conftest import Start, Worker
from tests.proxy.engines import ASK, BROKEN, Held, all_seen, ask, engines, nobody, replicas, seen
from tests.proxy.scripted import (
    SSE_HEAD,
    Backend,
    Message,
    Peer,
    event,
    get,
    ok,
    post,
    read_message,
    serve_always,
    until,
)
from vllm_circus.bus.messages import ModelState
from vllm_circus.config.models import Ejection, Limits
from vllm_circus.lifecycle.states import State
from vllm_circus.plan.types import PREFIX

FOR_GOOD = Ejection(failures=2, seconds=600)
SHORTLY = Ejection(failures=2, seconds=0.3)
LARGE = b'{"model":"chat","pad":"' + b"x" * 400_000 + b'"}'


def answered(worker: Worker, number: int = 1, *lines: bytes) -> list[bytes]:
    """The engines that answer so many requests, one after the other."""
    answers = [worker.chat(ASK, *lines) for _ in range(number)]
    assert {answer.status for answer in answers} == {200}
    return [answer.body for answer in answers]


# choosing


def test_the_one_with_the_fewest_requests_gets_the_next(start: Start) -> None:
    with engines(2) as (first, second):
        worker = start(*replicas(first.port, second.port))
        held = Held()
        first.plays(held)
        second.plays(held)
        clients = [ask(worker) for _ in range(6)]
        assert all_seen(6, first, second)
        assert seen(first, second) == [3, 3]
        held.let(6)
        assert {read_message(client).status for client in clients} == {200}


def test_equals_take_turns(start: Start) -> None:
    with engines(3) as made:
        worker = start(*replicas(*(engine.port for engine in made)))
        assert sorted(answered(worker, 6)) == [b"0", b"0", b"1", b"1", b"2", b"2"]


def test_a_session_stays_where_it_is_until_that_one_has_much_more_to_do(start: Start) -> None:
    with engines(2) as (first, second):
        worker = start(*replicas(first.port, second.port, affinity="x-session-id"))
        homes = [set(answered(worker, 3, b"X-Session-Id: %d" % number)) for number in range(16)]
        assert all(len(home) == 1 for home in homes)
        assert set.union(*homes) == {b"0", b"1"}
        held = Held()
        first.plays(held)
        second.plays(held)
        for _ in range(6):
            ask(worker, ASK, b"X-Session-Id: 1")
        assert all_seen(6, first, second)
        assert min(seen(first, second)) == 1, "with five there and none here it gives way"
        held.let(6)


def test_prompts_that_begin_alike_go_to_the_same_one(start: Start) -> None:
    with engines(2) as (first, second):
        worker = start(*replicas(first.port, second.port, affinity=PREFIX))
        homes = []
        for number in range(16):
            prompt = b'"messages":[{"role":"system","content":"%s"' % (b"%d" % number * 300)
            bodies = [b'{"model":"chat","seed":%d,%s,"x":%d}]}' % (seed, prompt, seed) for seed in range(3)]
            homes.append({worker.chat(body).body for body in bodies})
        assert all(len(home) == 1 for home in homes)
        assert set.union(*homes) == {b"0", b"1"}


def test_what_was_stored_is_asked_of_the_one_that_stored_it(start: Start) -> None:
    with engines(2) as (first, second):
        worker = start(*replicas(first.port, second.port))
        for engine, name in ((first, b"one"), (second, b"two")):
            engine.answers(ok(b'{"id":"resp_%b"}' % name))
            while not engine.requests:
                worker.ask(post(ASK, path=b"/v1/responses"))
            engine.requests.clear()
        first.answers(ok(b"first"))
        second.answers(ok(b"second"))
        for _ in range(3):
            assert worker.get(b"/v1/responses/resp_one").body == b"first"
            assert worker.get(b"/v1/responses/resp_one?model=chat").body == b"first"
            assert worker.ask(get(b"/v1/responses/resp_two", method=b"DELETE")).body == b"second"
        with bus_of(worker) as bus:
            assert bus.acted_on(bus.says(ModelState("chat-1", State.LOADING)))
            response = worker.get(b"/v1/responses/resp_one")
            assert (response.status, response.get(b"x-vllm-circus-error")) == (503, b"model_not_ready")
            assert worker.get(b"/v1/responses/resp_two").body == b"second"


# who cannot be reached


@pytest.mark.parametrize("dead", [0, 1])
def test_a_refused_connection_loses_nothing(start: Start, dead: int) -> None:
    with nobody() as port, engines(1) as (engine,):
        ports = [engine.port]
        ports.insert(dead, port)
        worker = start(*replicas(*ports))
        assert answered(worker, 4) == [b"0"] * 4
        assert until(lambda: b"cannot be reached" in worker.log.read_bytes())
        assert [request.body for request in engine.requests] == [ASK] * 4


@pytest.mark.parametrize("dead", [0, 1])
def test_half_a_large_body_moves_on_with_nothing_lost(start: Start, dead: int) -> None:
    """It is sent on before it is whole: what was held goes to the other one, and the rest after it."""
    with nobody() as port, engines(1) as (engine,):
        ports = [engine.port]
        ports.insert(dead, port)
        worker = start(*replicas(*ports))
        message = post(LARGE)
        clients = [worker.client() for _ in range(2)]  # one of them is sent to the dead one first
        for client in clients:
            client.send(message[:300_000])
        assert until(lambda: b"cannot be reached" in worker.log.read_bytes())
        for client in clients:
            client.send(message[300_000:])
            assert read_message(client).status == 200
        assert [request.body for request in engine.requests] == [LARGE] * 2


@pytest.mark.parametrize("size", [16, 300_000])
def test_what_was_sent_is_never_sent_to_another(start: Start, size: int) -> None:
    """Whoever had a byte of it may have acted on it: be it whole or half of a large body."""
    with engines(2) as (first, second):
        worker = start(*replicas(first.port, second.port))

        def script(backend: Backend, peer: Peer) -> None:
            backend.requests.append(read_message(peer) if size == 16 else read_head(peer))
            peer.reset()

        first.plays(script)
        second.plays(script)
        client = worker.client()
        client.send(post(ASK) if size == 16 else post(LARGE)[:size])
        response = read_message(client)
        assert (response.status, response.get(b"x-vllm-circus-error")) == (502, b"engine_lost")
        assert sum(seen(first, second)) == 1


@pytest.mark.parametrize("others", [1, 0])
def test_what_a_dying_engine_did_not_read_on_a_kept_connection_another_may_have(start: Start, others: int) -> None:
    """The reset says that it was not read, and nobody is there any more who could: so it is nowhere else."""
    with engines(1 + others) as (first, *rest):

        def script(backend: Backend, peer: Peer) -> None:
            backend.read_request(peer)
            peer.send(ok(b"first"))
            peer.sock.recv(1, socket.MSG_PEEK)  # the next one has come, and is not read
            backend.listener.shutdown(socket.SHUT_RDWR)
            backend.listener.close()
            peer.reset()

        first.plays(script)
        worker = start(*replicas(first.port, *(engine.port for engine in rest)))
        assert b"first" in {worker.chat(ASK).body for _ in range(1 + others)}
        answers = [worker.chat(ASK) for _ in range(1 + others)]
        if others:
            assert [(answer.status, answer.body) for answer in answers] == [(200, b"1")] * 2
            assert seen(*rest) == [3]
        else:
            (answer,) = answers
            assert (answer.status, answer.get(b"x-vllm-circus-error")) == (503, b"model_not_ready")
            assert answer.get(b"retry-after") == b"1"


def read_head(peer: Peer) -> Message:
    """The head of a request whose body does not come whole."""
    return Message(peer.read_until(b"\r\n\r\n"), [], b"", b"")


def test_where_all_refuse_the_client_is_told_to_come_again(start: Start) -> None:
    with nobody() as one, nobody() as two:
        worker = start(*replicas(one, two))
        for _ in range(3):
            response = worker.chat(ASK)
            assert (response.status, response.get(b"retry-after")) == (503, b"1")
            assert response.get(b"x-vllm-circus-error") == b"model_not_ready"


def test_a_request_tries_each_engine_once_however_long_that_takes(start: Start) -> None:
    """By the time that the second one is given up the first could be tried again: nobody waits for that."""
    with ExitStack() as stack:
        ports = []
        for _ in range(2):  # nobody accepts, and one connection fills the queue: the next ones get no answer
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
            stack.enter_context(socket.create_connection(listener.getsockname()))
            ports.append(listener.getsockname()[1])
        worker = start(*replicas(*ports), limits=Limits(connect_timeout=1.1))
        assert worker.chat(ASK).status == 503
        worker.stop()
        assert worker.log.read_bytes().count(b"cannot be reached") == 2


# who fails


def test_one_that_fails_several_times_in_a_row_is_left_alone(start: Start) -> None:
    with engines(2) as (bad, good):
        worker = start(*replicas(bad.port, good.port, ejection=FOR_GOOD))
        bad.answers(BROKEN)
        answers = [worker.chat(ASK) for _ in range(10)]
        failed = [answer for answer in answers if answer.status == 500]
        assert [answer.body for answer in failed] == [b"{}"] * 2, "as the engine wrote them"
        assert seen(bad, good) == [2, 8]


def test_one_that_loses_answers_is_left_alone(start: Start) -> None:
    with engines(2) as (bad, good):
        worker = start(*replicas(bad.port, good.port, ejection=FOR_GOOD))

        def script(backend: Backend, peer: Peer) -> None:
            backend.read_request(peer)
            peer.send(SSE_HEAD + event(1))
            peer.reset()

        bad.plays(script)
        for _ in range(10):
            with suppress(EOFError, ConnectionError):  # cut in the answer
                worker.chat(ASK)
        assert seen(bad, good) == [2, 8]


def test_faults_of_clients_are_not_those_of_the_engine(start: Start) -> None:
    with engines(2) as (first, second):
        worker = start(*replicas(first.port, second.port, ejection=FOR_GOOD))
        refusal = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 2\r\n\r\n{}"
        first.answers(refusal)
        second.answers(refusal)
        assert {worker.chat(ASK).status for _ in range(8)} == {400}
        assert seen(first, second) == [4, 4]


def test_one_request_tries_it_again_and_brings_it_back(start: Start) -> None:
    with engines(2) as (bad, good):
        worker = start(*replicas(bad.port, good.port, ejection=SHORTLY))
        bad.answers(BROKEN)
        while len(bad.requests) < 2:
            worker.chat(ASK)
        bad.answers(ok(b"back"))
        assert until(lambda: worker.chat(ASK).body == b"back")
        assert sorted(answered(worker, 4)) == [b"1", b"1", b"back", b"back"]


def test_a_stream_has_brought_it_back_when_it_begins(start: Start) -> None:
    with engines(2) as (bad, good):
        worker = start(*replicas(bad.port, good.port, ejection=SHORTLY))
        bad.answers(BROKEN)
        while len(bad.requests) < 2:
            worker.chat(ASK)

        def stream(backend: Backend, peer: Peer) -> None:
            backend.read_request(peer)
            peer.send(SSE_HEAD + event(1))
            peer.read_all()

        bad.plays(stream)
        assert until(lambda: read_some(ask(worker)).endswith(b"\n\r\n"))
        bad.script = serve_always(ok(b"back"))
        held = Held()
        good.plays(held)
        clients = [ask(worker) for _ in range(4)]
        assert until(lambda: len(bad.requests) > 1), "while the stream goes on"
        held.let(4)
        assert {read_message(client).status for client in clients} == {200}


def read_some(client: Peer) -> bytes:
    return client.sock.recv(65536)


def test_a_trial_whose_client_leaves_is_given_to_the_next(start: Start) -> None:
    with engines(2) as (bad, good):
        worker = start(*replicas(bad.port, good.port, ejection=SHORTLY))
        bad.answers(BROKEN)
        while len(bad.requests) < 2:
            worker.chat(ASK)
        bad.plays(Held())
        clients: list[Peer] = []
        assert until(lambda: clients.append(ask(worker)) or bad.requests)  # type: ignore[func-returns-value]
        for client in clients:
            client.close()
        bad.answers(ok(b"back"))
        assert until(lambda: worker.chat(ASK).body == b"back")


def test_the_last_ones_are_never_left_alone(start: Start) -> None:
    with engines(2) as (first, second):
        worker = start(*replicas(first.port, second.port, ejection=FOR_GOOD))
        first.answers(BROKEN)
        second.answers(BROKEN)
        assert {worker.chat(ASK).status for _ in range(10)} == {500}
        first.answers(ok(b"back"))
        assert until(lambda: worker.chat(ASK).status == 200)
        assert answered(worker, 4) == [b"back"] * 4


# states


def test_only_those_that_are_ready_get_requests(start: Start) -> None:
    with engines(2) as (first, second):
        worker = start(*replicas(first.port, second.port))
        with bus_of(worker) as bus:
            for state in (State.DRAINING, State.STOPPED, State.LOADING, State.BACKOFF):
                assert bus.acted_on(bus.says(ModelState("chat-1", state), ModelState("chat-2", State.READY)))
                assert answered(worker, 4) == [b"1"] * 4
            loading = ModelState("chat-2", State.LOADING, phase="loading weights", retry_after=30.0)
            assert bus.acted_on(bus.says(ModelState("chat-1", State.BACKOFF, retry_after=200.0), loading))
            response = worker.chat(ASK)
            assert (response.status, response.get(b"retry-after")) == (503, b"30")
            assert b"The model `chat` is loading: loading weights." in response.body
            assert bus.acted_on(bus.says(ModelState("chat-1", State.READY), loading))
            assert answered(worker, 4) == [b"0"] * 4


def test_an_engine_that_was_started_again_begins_anew(start: Start) -> None:
    with engines(2) as (bad, good):
        worker = start(*replicas(bad.port, good.port, ejection=FOR_GOOD))
        bad.answers(BROKEN)
        while len(bad.requests) < 2:
            worker.chat(ASK)
        bad.answers(ok(b"back"))
        assert answered(worker, 4) == [b"1"] * 4
        with bus_of(worker) as bus:
            assert bus.acted_on(bus.says(ModelState("chat-1", State.LOADING)))
            assert bus.acted_on(bus.says(ModelState("chat-1", State.READY)))
            assert sorted(answered(worker, 4)) == [b"1", b"1", b"back", b"back"]
