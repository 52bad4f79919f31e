"""Responses that engines have stored: who made them is found, and nobody else is taken for that."""

from __future__ import annotations

import asyncio
import json
import socket
import string
import threading
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.proxy.bus import bus_of
from tests.proxy.conftest import Start, Worker, a_model
from tests.proxy.engines import Held, engines, nobody, replicas, seen
from tests.proxy.scripted import Backend, Message, Peer, Script, chunk, ok, post, read_message, serve_always, until
from tests.proxy.test_bodymodel import BLANKS, TEXT, VALUES
from vllm_circus.bus.messages import ModelState
from vllm_circus.config.models import Queue, RequestRules
from vllm_circus.lifecycle.states import State
from vllm_circus.plan.types import Endpoint
from vllm_circus.proxy.errors import Refused
from vllm_circus.proxy.stored import NoWord, find_maker, previous_response

MISSING = b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\n{}"
NOT_ITS_TRADE = b"HTTP/1.1 501 Not Implemented\r\ncontent-length: 2\r\n\r\n{}"
BROKEN = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 2\r\n\r\n{}"


def storing(name: bytes, *stored: bytes) -> Script:
    """An engine with these responses: it knows them, and answers everything else with its name."""

    def script(backend: Backend, peer: Peer) -> None:
        while True:
            request = backend.read_request(peer)
            method, path, _ = request.start.split(b" ")
            if method == b"POST":
                peer.send(ok(name))
            elif path.rpartition(b"/")[2] in stored:
                peer.send(ok(b'{"id":"%b"}' % path.rpartition(b"/")[2]))
            else:
                peer.send(MISSING)

    return script


def going_on(response: bytes, **more: Any) -> bytes:
    """A body that goes on from this response."""
    members = {"model": "chat", "input": "hi", "previous_response_id": response.decode(), **more}
    return json.dumps(members).encode()


def go_on(worker: Worker, response: bytes, *lines: bytes) -> Message:
    return worker.ask(post(going_on(response), *lines, path=b"/v1/responses"))


def posts(*backends: Backend) -> list[int]:
    """How many requests each has had that it was not only asked about."""
    return [sum(request.start.startswith(b"POST") for request in backend.requests) for backend in backends]


def is_told_apart(response: Message) -> bool:
    """Whether it is ours, and says that another try makes sense."""
    code, after = response.get(b"x-vllm-circus-error"), response.get(b"retry-after")
    return (response.status, code) == (503, b"model_not_ready") and int(after or 0) >= 1


# who is asked for a stored response


def test_an_engine_that_is_down_may_have_it(start: Start, backend: Backend) -> None:
    backend.answers(MISSING)
    with nobody() as port:
        worker = start(a_model("alpha", backend.port), a_model("beta", port))
        assert is_told_apart(worker.get(b"/v1/responses/resp_1"))
        backend.plays(storing(b"alpha", b"resp_1"))
        assert worker.get(b"/v1/responses/resp_1").status == 200, "who knows it says so, whoever is down"


@pytest.mark.parametrize("state", [State.LOADING, State.UNHEALTHY, State.BACKOFF, State.DRAINING, State.QUEUED])
def test_an_engine_that_is_not_ready_may_have_it(start: Start, state: State) -> None:
    with engines(2) as (first, second):
        first.answers(MISSING)
        worker = start(a_model("alpha", first.port), a_model("beta", second.port))
        with bus_of(worker) as bus:
            ready = ModelState("alpha", State.READY)
            assert bus.acted_on(bus.says(ready, ModelState("beta", state, retry_after=7.5)))
            response = worker.get(b"/v1/responses/resp_1")
            assert is_told_apart(response)
            assert response.get(b"retry-after") == b"8"
            first.plays(storing(b"alpha", b"resp_2"))
            assert worker.get(b"/v1/responses/resp_2").status == 200
        assert second.requests == []


@pytest.mark.parametrize("state", [State.STOPPED, State.FAILED])
def test_an_engine_that_nobody_will_start_has_nothing(start: Start, backend: Backend, state: State) -> None:
    """What was stored went with its process, and to wait for that one would be to wait for ever."""
    backend.answers(MISSING)
    with nobody() as port:
        worker = start(a_model("alpha", backend.port), a_model("beta", port))
        with bus_of(worker) as bus:
            assert bus.acted_on(bus.says(ModelState("alpha", State.READY), ModelState("beta", state)))
            response = worker.get(b"/v1/responses/resp_1")
            assert (response.status, response.get(b"x-vllm-circus-error")) == (404, b"response_not_found")


@pytest.mark.parametrize(
    "answer", [BROKEN, b"HTTP/1.1 401 Unauthorized\r\n\r\n", b"HTTP/1.1 302 Found\r\n\r\n", b"SSH"]
)
def test_what_is_no_word_is_not_taken_for_one(worker: Worker, alpha: Backend, beta: Backend, answer: bytes) -> None:
    def script(backend: Backend, peer: Peer) -> None:
        backend.read_request(peer)
        peer.send(answer)
        peer.close()

    alpha.answers(MISSING)
    beta.plays(script)
    assert is_told_apart(worker.get(b"/v1/responses/resp_1"))


def test_an_engine_that_knows_no_stored_responses_gives_its_word(worker: Worker, alpha: Backend, beta: Backend) -> None:
    """vLLM says 501 for models that generate nothing, other engines 405 or 400."""
    alpha.answers(MISSING)
    for answer in (NOT_ITS_TRADE, NOT_ITS_TRADE.replace(b"501", b"405"), NOT_ITS_TRADE.replace(b"501", b"400")):
        beta.answers(answer)
        assert worker.get(b"/v1/responses/resp_1").status == 404


class Named:
    """As much of a backend as is asked."""

    lines = b"Host: x\r\n"

    def __init__(self, port: int) -> None:
        self.endpoint = Endpoint("127.0.0.1", port)


def found(*ports: int, patience: float = 5.0) -> int | None:
    """The port of the engine that has the response `resp_1`."""
    maker = asyncio.run(find_maker("resp_1", [cast("Any", Named(port)) for port in ports], patience=patience))
    return None if maker is None else maker.endpoint.port


def test_a_hung_engine_gives_no_word_and_keeps_nobody_waiting_who_is_known(backend: Backend) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, nobody() as dead:
        port = silent.getsockname()[1]
        backend.answers(MISSING)
        with pytest.raises(NoWord):
            found(port, backend.port, patience=0.2)
        with pytest.raises(NoWord):
            found(dead, backend.port)
        assert found(backend.port) is None
        backend.plays(storing(b"", b"resp_1"))
        assert found(dead, port, backend.port, patience=60) == backend.port


# who gets a request that goes on from one


def made(worker: Worker, *backends: Backend) -> None:
    """Let the worker see which of these engines makes `resp_0`, `resp_1` and so on; then each says its number."""
    for index, engine in enumerate(backends):
        engine.answers(ok(b'{"id":"resp_%d"}' % index))
    for _ in backends:  # equals take turns
        worker.ask(post(b'{"model":"chat"}', path=b"/v1/responses"))
    assert posts(*backends) == [1] * len(backends)
    for index, engine in enumerate(backends):
        engine.plays(storing(b"%d" % index, b"resp_%d" % index))


def test_it_goes_to_the_replica_that_has_it(start: Start) -> None:
    with engines(3) as three:
        worker = start(*replicas(*(engine.port for engine in three)))
        made(worker, *three)
        for index in (2, 0, 1, 2, 2, 0):
            assert go_on(worker, b"resp_%d" % index).body == b"%d" % index
        assert sum(seen(*three)) == sum(posts(*three)) == 6, "nobody is asked for what is known"


def test_replicas_are_asked_for_what_another_worker_handed_out(start: Start) -> None:
    with engines(2) as (first, second):
        worker = start(*replicas(first.port, second.port))
        first.plays(storing(b"0"))
        second.plays(storing(b"1", b"resp_x"))
        assert {go_on(worker, b"resp_x").body for _ in range(6)} == {b"1"}
        assert posts(first, second) == [0, 6]
        (asked, also) = seen(first, second)
        assert also == 7, "asked once"
        assert asked <= 1, "and given up where the other one had answered before"


def test_what_no_replica_has_is_for_any_of_them_to_say(start: Start) -> None:
    with engines(2) as (first, second):
        worker = start(*replicas(first.port, second.port))
        for engine, name in ((first, b"0"), (second, b"1")):
            engine.plays(storing(name))
        assert {go_on(worker, b"resp_nowhere").body for _ in range(4)} == {b"0", b"1"}
        assert {go_on(worker, b"no/../id\r\n").body for _ in range(4)} == {b"0", b"1"}
        assert not any(b"no" in request.start and b".." in request.start for request in first.requests)


def test_while_the_one_that_has_it_is_down_nobody_else_answers(start: Start) -> None:
    with engines(2) as (first, second):
        worker = start(*replicas(first.port, second.port))
        made(worker, first, second)
        with bus_of(worker) as bus:
            ready = ModelState("chat-2", State.READY)
            loading = ModelState("chat-1", State.LOADING, phase="loading weights", retry_after=40.0)
            assert bus.acted_on(bus.says(loading, ready))
            response = go_on(worker, b"resp_0")
            assert is_told_apart(response)
            assert response.get(b"retry-after") == b"40"
            assert b"The model `chat` has that response at a replica that is loading: loading weights." in response.body
            assert go_on(worker, b"resp_1").body == b"1"
            assert bus.acted_on(bus.says(ModelState("chat-1", State.READY), ready))
        first.close()
        for _ in range(3):
            response = go_on(worker, b"resp_0")
            assert is_told_apart(response)
            assert b"is not reachable" in response.body
        response = go_on(worker, b"resp_unknown")
        assert is_told_apart(response), "it may be there"
        assert json.loads(response.body)["error"]["param"] == "previous_response_id"
        assert posts(second) == [1]


def test_a_fallback_does_not_answer_for_who_is_down(start: Start) -> None:
    with engines(3) as (first, second, other):
        chat = replicas(first.port, second.port, fallback="other")
        worker = start(*chat, a_model("other", other.port))
        made(worker, first, second)
        first.close()
        assert {go_on(worker, b"resp_0").status for _ in range(3)} == {503}
        assert other.requests == []


@pytest.mark.parametrize("way", ["plain", "escaped", "large", "chunked", "rewritten"])
def test_it_is_found_in_every_kind_of_body(start: Start, way: str) -> None:
    body = going_on(b"resp_1", previous_response_ids="resp_0", metadata={"previous_response_id": "resp_0"})
    body = body.replace(b'"previous_response_id": "resp_1"', b'"previous\\u005fresponse_id":"resp\\u005f1"')
    body = going_on(b"resp_1") if way == "plain" else body
    if way == "large":  # the name comes long after its model, and after what would be sent on at once
        body = b'{"model":"chat","input":"' + b"x" * 600_000 + b'","previous_response_id":"resp_1"}'
    message = post(body, path=b"/v1/responses")
    if way == "chunked":
        head, _, _ = message.partition(b"Content-Length")
        pieces = b"".join(chunk(body[at : at + 7]) for at in range(0, len(body), 7))
        message = head + b"Transfer-Encoding: chunked\r\n\r\n" + pieces + b"0\r\n\r\n"
    rules = RequestRules(defaults={"temperature": 1}) if way == "rewritten" else RequestRules()
    with engines(2) as (first, second):
        worker = start(*replicas(first.port, second.port, request=rules))
        made(worker, first, second)
        for _ in range(3):
            assert worker.ask(message).body == b"1"
        sent = second.requests[-1].body
        assert sent == body or (way == "rewritten" and sent == body[:-1] + b',"temperature":1}')


def test_two_that_differ_are_refused_where_it_matters(start: Start) -> None:
    with engines(3) as (first, second, alone):
        worker = start(*replicas(first.port, second.port), a_model("alone", alone.port))
        made(worker, first, second)
        twice = b'{"model":"chat","previous_response_id":"resp_1","previous_response_id":"resp_%d"}'
        assert worker.ask(post(twice % 1, path=b"/v1/responses")).body == b"1"
        response = worker.ask(post(twice % 0, path=b"/v1/responses"))
        code = response.get(b"x-vllm-circus-error")
        assert (response.status, code) == (400, b"duplicate_previous_response_id")
        assert json.loads(response.body)["error"]["param"] == "previous_response_id"
        response = worker.ask(post(twice.replace(b'"resp_%d"', b"7"), path=b"/v1/responses"))
        assert (response.status, response.get(b"x-vllm-circus-error")) == (400, b"bad_previous_response_id")
        body = (twice % 0).replace(b"chat", b"alone")
        assert worker.ask(post(body, path=b"/v1/responses")).status == 200, "one engine has all there is"
        assert worker.ask(post(twice % 0)).status == 200, "chats go on from nothing"


def test_one_engine_is_never_asked(start: Start, backend: Backend) -> None:
    worker = start(a_model("chat", backend.port, max_in_flight=2))
    backend.plays(storing(b"only"))
    assert go_on(worker, b"resp_1").body == b"only"
    assert posts(backend) == seen(backend) == [1]


def test_who_leaves_while_engines_are_asked_is_never_sent(start: Start) -> None:
    asked, go = threading.Event(), threading.Event()

    def script(backend: Backend, peer: Peer) -> None:
        backend.read_request(peer)
        asked.set()
        go.wait(10)
        peer.send(ok(b"{}"))

    with engines(2) as (first, second):
        worker = start(*replicas(first.port, second.port))
        first.plays(script)
        second.plays(script)
        with bus_of(worker) as bus:
            client = worker.client()
            client.send(post(going_on(b"resp_1"), path=b"/v1/responses"))
            assert asked.wait(10)
            client.close()
            assert until(lambda: bus.told and bus.told[-1].models["chat-1"].statuses == {499: 1})
        go.set()
        first.script = second.script = serve_always(ok(b"x"))
        assert worker.get(b"/health").status == 200
        assert posts(first, second) == [0, 0]


# where each may have so many at a time


def test_it_waits_for_its_own_replica_while_others_go_on(start: Start) -> None:
    with engines(2) as (first, second):
        worker = start(*replicas(first.port, second.port, max_in_flight=1))
        made(worker, first, second)
        held = Held(ok(b"first"))
        first.plays(held)
        clients = [worker.client() for _ in range(3)]
        with bus_of(worker) as bus:
            for number, client in enumerate(clients):
                client.send(post(going_on(b"resp_0", n=number), path=b"/v1/responses"))
                assert until(lambda: bus.told and bus.told[-1].models["chat-1"].waiting == number)  # noqa: B023
            for _ in range(4):
                assert go_on(worker, b"resp_1").body == b"1", "the other one is free"
                assert worker.chat(b'{"model":"chat"}').body == b"1"
            assert worker.get(b"/v1/responses/resp_1").status == 200
            held.let(3)
            assert {read_message(client).body for client in clients} == {b"first"}
            assert until(lambda: bus.told[-1].models["chat-1"].waiting == 0)
        assert [json.loads(request.body)["n"] for request in first.requests] == [0, 1, 2]
        assert held.most == 1


def test_those_who_need_one_replica_and_those_who_take_any_have_it_by_turns(start: Start) -> None:
    with engines(2) as (first, second):
        worker = start(*replicas(first.port, second.port, max_in_flight=1))
        made(worker, first, second)
        held, other = Held(), Held()
        first.plays(held)
        second.plays(other)
        clients = []

        def begin(body: bytes, waiting: int) -> None:
            clients.append(worker.client())
            clients[-1].send(post(body, path=b"/v1/responses"))
            assert until(lambda: bus.told and bus.told[-1].models["chat-1"].waiting == waiting)

        with bus_of(worker) as bus:
            begin(going_on(b"resp_0", n="here"), 0)
            begin(going_on(b"resp_1", n="there"), 0)
            for number in range(3):
                begin(going_on(b"resp_0", n=f"here{number}"), 2 * number + 1)
                begin(b'{"model":"chat","n":"any"}', 2 * number + 2)
        held.let(7)
        assert until(lambda: len(first.requests) == 7)
        other.let()
        assert {read_message(client).status for client in clients} == {200}
        kinds = [json.loads(request.body)["n"] for request in first.requests]
        assert kinds == ["here", "here0", "any", "here1", "any", "here2", "any"]


def test_who_waits_for_one_replica_is_told_when_it_goes(start: Start) -> None:
    with engines(2) as (first, second):
        worker = start(*replicas(first.port, second.port, max_in_flight=1, queue=Queue(size=1)))
        made(worker, first, second)
        held = Held()
        first.plays(held)
        clients = [worker.client() for _ in range(2)]
        with bus_of(worker) as bus:
            for number, client in enumerate(clients):
                client.send(post(going_on(b"resp_0"), path=b"/v1/responses"))
                assert until(lambda: bus.told and bus.told[-1].models["chat-1"].waiting == number)  # noqa: B023
            response = go_on(worker, b"resp_0")
            assert (response.status, response.get(b"x-vllm-circus-error")) == (429, b"queue_full")
            ready = ModelState("chat-2", State.READY)
            assert bus.acted_on(bus.says(ModelState("chat-1", State.DRAINING), ready))
            assert is_told_apart(read_message(clients[1]))
            assert until(lambda: bus.told[-1].models["chat-1"].waiting == 0)
        held.let()
        assert read_message(clients[0]).status == 200
        assert posts(first, second) == [1, 0]


# which one it goes on from


NAMES = st.sampled_from(["previous_response_id", "previous_response", "Previous_response_id", "previous_response_id "])
IDS = st.sampled_from(["resp_1", "resp_2", "", "é", "resp 1", "x" * 129]) | TEXT


@st.composite
def bodies(draw: st.DrawFn) -> str:
    """JSON objects with the member never, once or several times, spelled in many ways."""
    pairs = draw(st.lists(st.tuples(NAMES | TEXT, VALUES | IDS), max_size=4))
    pairs += [("previous_response_id", value) for value in draw(st.lists(IDS | st.none(), max_size=2))]
    parts = []
    for key, value in draw(st.permutations(pairs)):
        spelled = json.dumps(key, ensure_ascii=draw(st.booleans()))
        if key[:1].isalpha() and key[:1].isascii() and draw(st.booleans()):
            spelled = f'"\\u{ord(key[0]):04x}{spelled[2:]}'
        written = json.dumps(value, ensure_ascii=draw(st.booleans()))
        parts.append(f"{draw(BLANKS)}{spelled}{draw(BLANKS)}:{draw(BLANKS)}{written}{draw(BLANKS)}")
    return "{" + ",".join(parts) + "}"


@given(bodies())
def test_it_reads_what_a_json_parser_reads(body: str) -> None:
    values = [
        value for key, value in json.loads(body, object_pairs_hook=list) if key == "previous_response_id"
    ]  # pairs within values are lists as well, and no matter
    if len({json.dumps(value or None) for value in values}) > 1 or not all(
        value is None or isinstance(value, str) for value in values
    ):
        with pytest.raises(Refused, match="previous_response_id"):
            previous_response(body.encode())
        return
    name = json.loads(body).get("previous_response_id") or None
    is_usable = name is not None and len(name) <= 128 and set(name) <= {*string.ascii_letters, *string.digits, *"-_"}
    assert previous_response(body.encode()) == (name if is_usable else None)


@given(st.binary(max_size=60) | st.text('{}[]":,\\ previous_response_id\\u1', max_size=60).map(str.encode))
def test_no_bytes_break_it(data: bytes) -> None:
    try:
        previous_response(data)
    except Refused as error:
        assert error.http_status == 400  # noqa: PT017 - both ways are right


def test_what_has_it_nowhere_is_not_read_at_all() -> None:
    """What is wrong with it is found by others."""
    assert previous_response(b"[" * 100_000) is None


def test_a_body_of_nothing_but_values_within_values_is_refused_in_bounded_time() -> None:
    many = b'{"previous_response_id":"resp_1","x":[' + b"[[[1]]]," * 2_000_000 + b"1]}"
    with pytest.raises(Refused, match="too many values"):
        previous_response(many)
