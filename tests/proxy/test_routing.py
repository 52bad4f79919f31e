"""Which engine answers, and what is said where none can."""

from __future__ import annotations

import json
import socket
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.proxy.bus import bus_of
from tests.proxy.conftest import Start, Worker, a_model, a_plan
from tests.proxy.engines import replicas
from tests.proxy.scripted import SSE_HEAD, Backend, Message, Peer, chunk, event, get, ok, post, read_message, until
from vllm_circus.bus.messages import ModelsMessage, ModelState
from vllm_circus.lifecycle.states import State
from vllm_circus.proxy.errors import Refused
from vllm_circus.proxy.routes import WORDS, make_table, nearest


def error_of(response: Message) -> dict[str, object]:
    found: dict[str, object] = json.loads(response.body)["error"]
    return found


@pytest.mark.parametrize("name", ["alpha", "alpha-alias", "Org/Alpha", "alpha-lora"])
def test_every_name_of_a_model_reaches_its_engine(worker: Worker, alpha: Backend, beta: Backend, name: str) -> None:
    assert worker.chat(json.dumps({"model": name}).encode()).status == 200
    assert len(alpha.requests) == 1
    assert beta.requests == []


def test_an_unknown_model_is_404_in_openais_form(worker: Worker, alpha: Backend) -> None:
    response = worker.chat(b'{"model":"nope\\u001b[31m"}')
    assert response.status == 404
    error = error_of(response)
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", "model", "model_not_found")
    assert "\x1b" not in str(error["message"])
    assert response.get(b"x-request-id") is not None


def test_an_unknown_model_is_404_in_anthropics_form(worker: Worker) -> None:
    response = worker.ask(post(b'{"model":"nope"}', b"X-Request-Id: r1", path=b"/v1/messages"))
    document = json.loads(response.body)
    assert (response.status, document["type"], document["error"]["type"]) == (404, "error", "not_found_error")
    assert document["request_id"] == "r1"


@pytest.mark.parametrize("body", [b"{}", b'{"model":""}', b'{"model":null}'])
def test_no_model_among_several_is_400(worker: Worker, body: bytes) -> None:
    response = worker.chat(body)
    assert (response.status, error_of(response)["param"]) == (400, "model")


def test_no_model_is_the_only_one_or_the_default(start: Start, backend: Backend) -> None:
    other = Backend()
    only = start(a_model("alpha", backend.port))
    assert only.chat(b"{}").status == 200
    only.stop()
    several = start(a_model("beta", other.port), a_model("alpha", backend.port), default_model="alpha")
    assert several.chat(b'{"model":null}').status == 200
    assert len(backend.requests) == 2
    assert several.get(b"/version").status == 200
    assert other.requests == []
    other.close()


def test_the_query_names_the_model_where_there_is_no_body(worker: Worker, alpha: Backend, beta: Backend) -> None:
    assert worker.get(b"/version?model=beta").status == 200
    assert worker.get(b"/v1/responses/resp_1?model=alpha-alias").status == 200
    assert worker.get(b"/version?model=nope").status == 404
    assert worker.get(b"/version").status == 400
    assert (len(alpha.requests), len(beta.requests)) == (1, 1)
    assert alpha.requests[0].start == b"GET /v1/responses/resp_1?model=alpha-alias HTTP/1.1"


def test_engines_are_asked_for_a_response_that_another_worker_handed_out(
    worker: Worker, alpha: Backend, beta: Backend
) -> None:
    """The worker knows nothing of it: each engine says whether it does."""
    missing = b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\n{}"
    alpha.answers(missing)
    beta.answers(ok(b'{"id":"resp_elsewhere"}'))
    assert worker.get(b"/v1/responses/resp_elsewhere").body == b'{"id":"resp_elsewhere"}'
    assert worker.ask(post(b"", path=b"/v1/responses/resp_elsewhere/cancel")).status == 200
    assert beta.requests[-1].start.startswith(b"POST ")
    beta.answers(missing)
    message = worker.get(b"/v1/responses/resp_nowhere")
    assert (message.status, message.get(b"x-vllm-circus-error")) == (404, b"response_not_found")
    assert worker.get(b"/v1/responses/resp_nowhere?model=beta").get(b"x-vllm-circus-error") is None, "the engine's own"


def test_a_stored_response_is_found_where_it_was_made(worker: Worker, alpha: Backend, beta: Backend) -> None:
    beta.answers(ok(b'{"id": "resp_abc", "object": "response"}'))
    worker.ask(post(b'{"model":"beta"}', path=b"/v1/responses"))
    for request in (
        get(b"/v1/responses/resp_abc"),
        get(b"/v1/responses/resp_abc", method=b"DELETE"),
        post(b"", path=b"/v1/responses/resp_abc/cancel"),
    ):
        assert worker.ask(request).status == 200
    assert len(beta.requests) == 4
    assert alpha.requests == []


def test_a_form_names_its_model(worker: Worker, alpha: Backend) -> None:
    form = (
        b'--XX\r\nContent-Disposition: form-data; name="model"\r\n\r\nalpha\r\n'
        b'--XX\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
        + b"RIFF" * 200_000
        + b"\r\n--XX--\r\n"
    )
    head = b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=XX\r\n"
    response = worker.ask(head + b"Content-Length: %d\r\n\r\n" % len(form) + form)
    assert response.status == 200
    assert alpha.requests[0].body == form


def test_a_realtime_connection_becomes_a_tunnel(worker: Worker, alpha: Backend) -> None:
    def script(backend: Backend, peer: Peer) -> None:
        backend.read_request(peer)
        peer.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nhello")
        peer.send(peer.read_exactly(4)[::-1])
        peer.close()

    alpha.plays(script)
    client = worker.client()
    client.send(
        get(b"/v1/realtime?model=alpha", b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Key: k")
    )
    assert client.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 101 ")
    client.send(b"ping")
    assert client.read_all() == b"hellognip"
    (seen,) = alpha.requests
    assert (seen.get(b"upgrade"), seen.get(b"sec-websocket-key")) == (b"websocket", b"k")


def test_a_tunnel_begins_with_the_protocol_that_was_asked_for_and_with_nothing_of_another_hop(
    worker: Worker, alpha: Backend
) -> None:
    lines = (
        b"Keep-Alive: 5\r\nContent-Length: 5\r\nX-Vllm-Circus-Error: x\r\nAccess-Control-Allow-Origin: *\r\nX-A: 1\r\n"
    )
    ask = get(b"/v1/realtime?model=alpha", b"Connection: Upgrade", b"Upgrade: websocket", b"X-Request-Id: me")

    def switch(upgrade: bytes) -> bytes:
        def script(backend: Backend, peer: Peer) -> None:
            backend.read_request(peer)
            peer.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n" + upgrade + lines + b"\r\n")
            peer.ended()

        alpha.plays(script)
        client = worker.client()
        client.send(ask)
        return client.read_until(b"\r\n\r\n")

    head = switch(b"Upgrade: WebSocket\r\n")
    assert head.split(b"\r\n")[0] == b"HTTP/1.1 101 Switching Protocols"
    assert sorted(head.split(b"\r\n")[1:-2]) == [
        b"X-A: 1", b"connection: Upgrade", b"upgrade: websocket", b"x-request-id: me",
    ]  # fmt: skip
    for other in (b"Upgrade: h2c\r\n", b"Upgrade: websocket, h2c\r\n", b""):
        assert switch(other).startswith(b"HTTP/1.1 502 ")


def test_a_client_that_leaves_a_tunnel_ends_it(worker: Worker, alpha: Backend) -> None:
    ended = threading.Event()

    def script(backend: Backend, peer: Peer) -> None:
        backend.read_request(peer)
        peer.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
        if peer.ended():
            ended.set()

    alpha.plays(script)
    client = worker.client()
    client.send(get(b"/v1/realtime?model=alpha", b"Connection: Upgrade", b"Upgrade: websocket"))
    client.read_until(b"\r\n\r\n")
    client.close()
    assert ended.wait(3)


# states from the bus


def test_a_model_that_is_not_ready_is_503_with_the_reason(start: Start, backend: Backend) -> None:
    worker = start(a_model("alpha", backend.port))
    assert worker.chat(b"{}").status == 200, "without a word from anybody, a model is tried"
    with bus_of(worker) as bus:
        loading = ModelState("alpha", State.LOADING, phase="loading weights", retry_after=12.2)
        assert bus.acted_on(bus.says(loading))
        response = worker.chat(b"{}")
        assert (response.status, response.get(b"retry-after")) == (503, b"13")
        assert error_of(response)["message"] == "The model `alpha` is loading: loading weights."
        for state in (State.DRAINING, State.FAILED, State.STOPPED, State.UNHEALTHY):
            assert bus.acted_on(bus.says(ModelState("alpha", state, "because\x1b[0m")))
            response = worker.chat(b"{}")
            assert response.status == 503
            assert int(response.get(b"retry-after") or 0) >= 1
        assert bus.acted_on(bus.says(ModelState("alpha", State.READY)))
        assert worker.chat(b"{}").status == 200
        assert json.loads(worker.get(b"/v1/models").body)["data"][0]["state"] == "ready"
    assert len(backend.requests) == 2


@pytest.mark.parametrize("state", [state for state in State if not state.routable])
def test_every_state_is_told_in_words(state: State) -> None:
    table = make_table(
        a_plan(Path("/x"), a_model("alpha", 1)), ModelsMessage(0, 1, 1, (ModelState("alpha", state, "because"),))
    )
    refusal = table.names["alpha"].refusal
    assert refusal is not None
    assert str(refusal) == f"The model `alpha` {WORDS[state]}: because."
    assert not str(refusal).startswith(f"The model `alpha` is {state}:") or state in {State.LOADING, State.STOPPED}
    assert refusal.code == "model_not_ready"


def test_the_counters_tell_what_happened(start: Start, backend: Backend) -> None:
    worker = start(a_model("alpha", backend.port), a_model("beta", backend.port))
    decoy = b'{"choices":[{"text":"\\"usage\\":{\\"prompt_tokens\\":999}"}],'
    usage = decoy + b'"usage":{"prompt_tokens":7,"completion_tokens":5}}'
    with bus_of(worker) as bus:
        backend.answers(ok(usage))
        worker.chat(b'{"model":"alpha"}')
        last = chunk(b'data: {"choices":[],"usage":{"prompt_tokens":1,"total_tokens":3,"completion_tokens":2}}\n\n')
        backend.answers(SSE_HEAD + event(1) + event(2) + last + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
        worker.chat(b'{"model":"alpha","stream":true}')
        worker.chat(b'{"model":"nope"}')
        held = threading.Event()

        def script(backend: Backend, peer: Peer) -> None:
            backend.read_request(peer)
            held.wait(10)
            peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx")
            time.sleep(0.05)
            peer.close()

        backend.plays(script)
        client = worker.client()
        client.send(post(b'{"model":"alpha"}'))
        assert until(lambda: bus.told and bus.told[-1].models["alpha"].in_flight == 1)
        held.set()
        assert until(lambda: bus.told[-1].models["alpha"].requests == 3)
        message = bus.told[-1]
        counts = message.models["alpha"]
        assert (counts.statuses, counts.in_flight, counts.cut) == ({200: 3}, 0, 1)
        assert (counts.streams, counts.chunks) == (1, 4)
        assert (counts.prompt_tokens, counts.completion_tokens) == (8, 7)
        assert counts.first_token.count == counts.duration.count == 3
        assert counts.request_bytes == 17 + 31 + 17
        assert message.unrouted == {404: 1}
        assert message.models["beta"].requests == 0
        left = worker.client()
        held.clear()
        backend.plays(script)
        left.send(post(b'{"model":"beta"}'))
        assert until(lambda: backend.requests)
        left.close()
        assert until(lambda: bus.told[-1].models["beta"].statuses == {499: 1})
        worker.process.terminate()
        assert until(lambda: bus.told[-1].leaving)
        assert {told.worker for told in bus.told} == {message.worker}


# the table alone


def table_of(tmp_path: object, *states: ModelState, believed: bool = True, **proxy: object):  # type: ignore[no-untyped-def]

    plan = a_plan(Path("/x"), a_model("a", 1, names=("a", "A")), a_model("b", 2), **proxy)
    message = ModelsMessage(0.0, 1, 9, states) if states else None
    return make_table(plan, message, believed=believed)


def test_states_that_are_too_old_are_not_believed(tmp_path: object) -> None:
    loading = ModelState("a", State.LOADING)
    assert table_of(tmp_path, loading).find("A").refusal is not None
    assert table_of(tmp_path, loading, believed=False).find("A").refusal is None
    assert table_of(tmp_path, loading).find("b").refusal is None, "nothing was said about it"


LOADING = ModelState("", State.LOADING, phase="loading weights")


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(
    ("states", "state", "words", "retry_after"),
    [
        # the nearest one speaks, whichever it is, and the soonest one sets the time
        ([ModelState("", State.BACKOFF, "exit code 1"), LOADING], "loading", "is loading: loading weights", 5),
        (
            [replace(LOADING, retry_after=600.0), ModelState("", State.BACKOFF, "exit code 1", retry_after=30.5)],
            "loading",
            "is loading: loading weights",
            31,
        ),
        ([replace(LOADING, phase="starting", retry_after=90.0), replace(LOADING, retry_after=20.0)], "loading",
            "is loading: loading weights", 20),
        ([ModelState("", State.FAILED, "out of memory"), ModelState("", State.STOPPED)], "stopped", "is stopped", 60),
        # who will not come back sets no time for who will
        ([ModelState("", State.FAILED, "out of memory"), replace(LOADING, retry_after=600.0)], "loading",
            "is loading: loading weights", 600),
        ([ModelState("", State.STOPPED), ModelState("", State.DRAINING, "restart", retry_after=95.0)], "draining",
            "is being stopped: restart", 95),
    ],
)  # fmt: skip
def test_a_model_with_replicas_is_spoken_of_as_one(
    states: list[ModelState], state: str, words: str, retry_after: int, turned: bool
) -> None:
    """The same in `/v1/models` and in the answer to a request, in whatever order the replicas stand."""
    plan = a_plan(Path("/x"), *replicas(1, 2))
    told = [replace(one, name=f"chat-{number}") for number, one in enumerate(states[:: -1 if turned else 1], 1)]
    message = ModelsMessage(0.0, 1, 9, tuple(told))
    refusal = make_table(plan, message).refusals["chat"]
    assert (str(refusal), refusal.retry_after) == (f"The model `chat` {words}.", retry_after)
    nearest_one = nearest(told)
    assert nearest_one is not None
    assert nearest_one.state == state


def test_a_model_is_ready_if_one_of_its_replicas_is() -> None:
    plan = a_plan(Path("/x"), *replicas(1, 2, 3))
    states = [ModelState(f"chat-{n}", state) for n, state in ((1, State.FAILED), (2, State.LOADING), (3, State.READY))]
    table = make_table(plan, ModelsMessage(0.0, 1, 9, tuple(states)))
    assert table.find("chat").refusal is None
    assert set(table.away) == {"chat-1", "chat-2"}
    assert nearest(states) == states[2]


def test_the_default_of_a_table(tmp_path: object) -> None:
    assert table_of(tmp_path, default_model="A").find(None).group == "a"
    with pytest.raises(Refused, match="Several"):
        table_of(tmp_path).find(None)
    assert table_of(tmp_path).sequence == 0


def test_a_listener_is_not_left_behind(start: Start, backend: Backend) -> None:
    """The socket belongs to whoever handed it over: with a second worker on it, none is refused."""
    worker = start(a_model("alpha", backend.port))
    with socket.socket() as probe:
        probe.settimeout(5)
        probe.connect(("127.0.0.1", worker.port))
        probe.sendall(get(b"/health"))
        assert read_message(Peer(probe)).status == 200
    assert worker.stop() == 0
