"""What hardly ever happens, or only to those who want it to: it leaves nothing behind and lets nobody wait."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from pathlib import Path

from tests.proxy.bus import bus_of
from tests.proxy.conftest import Start, Worker, a_model, a_plan
from tests.proxy.engines import ASK, BROKEN, ask, engines, numbered, replicas
from tests.proxy.scripted import DEADLINE, Backend, Peer, get, ok, post, read_message, serve_always, until
from vllm_circus.config.models import Ejection, Limits
from vllm_circus.plan.types import Endpoint
from vllm_circus.proxy.connection import LINGER_SECONDS
from vllm_circus.proxy.downstream import Downstream
from vllm_circus.proxy.keys import Keys
from vllm_circus.proxy.relay import MOST_HELD, Relay
from vllm_circus.proxy.request import HOLD

ALPHA = b'{"model":"alpha"}'


def test_bodies_that_found_no_room_leave_none_taken(tmp_path: Path) -> None:
    async def play() -> None:
        plan = a_plan(tmp_path, a_model("alpha", 1))
        loop = asyncio.get_running_loop()
        relay = Relay(plan, Keys(), loop=loop, control=Endpoint("localhost", 0, "/x"))
        relay.hold(MOST_HELD)
        ours, theirs = socket.socketpair()
        relay.poller.adopt(ours, Downstream(relay))
        reader, writer = await asyncio.open_unix_connection(sock=theirs)
        writer.write(post(b'{"model":"alpha","pad":"%b"}' % (b"x" * 8000)))
        assert b"\r\nx-vllm-circus-error: overloaded\r\n" in await reader.readuntil(b"\r\n\r\n")
        writer.close()
        relay.hold(-MOST_HELD)
        relay.hold(MOST_HELD)  # raises where a byte is still counted
        relay.close()

    asyncio.run(play())


def test_empty_lines_without_number_hold_nobody_up(worker: Worker) -> None:
    client = worker.client()
    client.send(b"\r\n" * (4 << 20) + get(b"/health"))
    assert read_message(client).status == 200


def test_a_client_that_leaves_is_noticed_while_the_engine_takes_nothing(start: Start, backend: Backend) -> None:
    begun, done = threading.Event(), threading.Event()

    def script(own: Backend, peer: Peer) -> None:
        peer.read_until(b"\r\n\r\n")
        begun.set()
        done.wait(3 * DEADLINE)

    backend.plays(script)
    worker = start(a_model("alpha", backend.port), request_logging=True)
    client = worker.client()
    client.send(post(b'{"pad":"%b","model":"alpha"}' % (b"x" * (24 << 20))))  # sent on whole: the name comes last
    assert begun.wait(DEADLINE)
    client.close()
    assert until(lambda: b" status=499 " in worker.log.read_bytes())
    done.set()


def test_a_client_that_leaves_the_queue_after_a_large_upload_is_noticed(start: Start, backend: Backend) -> None:
    done = threading.Event()

    def script(own: Backend, peer: Peer) -> None:
        own.read_request(peer)
        done.wait(3 * DEADLINE)

    backend.plays(script)
    worker = start(a_model("alpha", backend.port, max_in_flight=1))
    with bus_of(worker) as bus:

        def waiting(number: int) -> bool:
            return until(lambda: bus.told and bus.told[-1].models["alpha"].waiting == number)

        worker.client().send(post(ALPHA))
        assert until(lambda: backend.requests)
        client = worker.client()
        body = b'{"model":"alpha","pad":"%b"}' % (b"x" * HOLD)
        upload = post(body)
        last = len(body) - HOLD - 1  # before these it waits, since one byte more is here than is held for the end
        client.send(upload[:-last])
        assert waiting(1)
        client.send(upload[-last:])
        time.sleep(0.2)  # so that the end does not come with the last piece
        client.close()
        assert waiting(0)
    done.set()


def test_a_refused_upload_is_not_listened_to_for_long(start: Start, backend: Backend) -> None:
    worker = start(a_model("alpha", backend.port), limits=Limits(header_timeout=60.0))
    client = worker.client()
    client.send(post(b'{"model":"nope","pad":"%b"}' % (b"x" * 2_000_000))[:-1_000_000])
    assert read_message(client).status == 404

    def closed() -> bool:
        try:
            client.send(b"x")
        except OSError:
            return True
        return False

    assert until(closed)


def test_who_reads_slowly_has_the_whole_answer_before_the_connection_is_closed(
    start: Start, backend: Backend, short_dir: Path
) -> None:
    """However much of it the kernel takes: what is left has the time of a reader, not that of a goodbye."""

    def script(own: Backend, peer: Peer) -> None:
        while True:
            peer.send(ok(b"x" * int(json.loads(own.read_request(peer).body)["size"])))

    backend.plays(script)
    worker = start(a_model("alpha", backend.port), unix_socket=str(short_dir / "public"))
    clients: list[tuple[int, Peer]] = []
    for size in range(100_000, 420_000, 20_000):
        client = Peer(socket.socket(socket.AF_UNIX))
        client.sock.connect(worker.plan.proxy.unix_socket or "")
        worker.clients.append(client)
        client.send(post(b'{"model":"alpha","size":%d}' % size, b"Connection: close"))
        clients.append((size, client))
    time.sleep(LINGER_SECONDS + 1.5)
    for size, client in clients:
        assert len(read_message(client).body) == size


def test_http_1_0_is_told_that_its_connection_stays_after_a_refusal(worker: Worker) -> None:
    client = worker.client()
    for _ in range(2):
        client.send(b"GET /nope HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        response = read_message(client)
        assert (response.status, response.get(b"connection")) == (404, b"keep-alive")


def test_a_stored_response_is_not_the_default_models_by_default(start: Start, backend: Backend) -> None:
    maker = Backend()
    backend.answers(b"HTTP/1.1 404 " + b"x" * 200_000 + b"\r\ncontent-length: 0\r\n\r\n")
    maker.answers(ok(b'{"id":"resp_elsewhere"}'))
    worker = start(a_model("alpha", backend.port), a_model("beta", maker.port), default_model="alpha")
    assert worker.get(b"/v1/responses/resp_elsewhere").body == b'{"id":"resp_elsewhere"}'
    maker.answers(b"HTTP/1.1 404 " + b"x" * 200_000)
    response = worker.get(b"/v1/responses/resp_nowhere")
    assert (response.status, response.get(b"x-vllm-circus-error")) == (404, b"response_not_found")
    maker.close()


def test_a_hidden_usage_adds_no_body_where_there_is_none(start: Start, backend: Backend) -> None:
    backend.answers(b"HTTP/1.1 204 No Content\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
    worker = start(a_model("alpha", backend.port), exact_usage=True)
    client = worker.client()
    client.send(post(b'{"model":"alpha","stream":true}'))
    assert read_message(client).status == 204
    client.send(get(b"/health"))
    assert read_message(client).start == b"HTTP/1.1 200 OK"


def test_clients_that_stop_reading_cost_no_replica_its_turn(start: Start) -> None:
    def script(own: Backend, peer: Peer) -> None:
        own.read_request(peer)
        peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 32000000\r\n\r\n" + b"x" * 32_000_000)

    with engines(2) as (first, second):
        out_at_once = Ejection(failures=1, seconds=600)
        worker = start(
            *replicas(first.port, second.port, ejection=out_at_once),
            limits=Limits(idle_timeout=1.0),
            request_logging=True,
        )
        first.plays(script)
        second.plays(script)
        ask(worker)
        assert until(lambda: b" cut\n" in worker.log.read_bytes())
        first.answers(numbered(0))
        second.answers(numbered(1))
        assert {worker.chat(ASK).body for _ in range(4)} == {b"0", b"1"}


def test_a_tunnel_brings_back_the_replica_that_it_tries(start: Start) -> None:
    """And does so when it begins, since it may stay for hours."""

    def script(own: Backend, peer: Peer) -> None:
        own.read_request(peer)
        peer.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
        peer.read_all()

    with engines(2) as (first, second):
        worker = start(*replicas(first.port, second.port, ejection=Ejection(failures=1, seconds=0.3)))
        first.answers(BROKEN)
        assert until(lambda: worker.chat(ASK).status == 500)
        first.plays(script)
        second.plays(script)

        def reached() -> bool:
            client = worker.client()
            client.send(get(b"/v1/realtime?model=chat", b"Connection: Upgrade", b"Upgrade: websocket"))
            client.read_until(b"\r\n\r\n")
            return bool(first.requests)

        assert until(reached)
        first.script, second.script = serve_always(numbered(0)), serve_always(numbered(1))
        assert b"0" in {worker.chat(ASK).body for _ in range(4)}
