"""Streams that wait and are told so: 200 and comments first, then what the engine says, or an error nobody misses."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.proxy.engines import Held, replicas
from tests.proxy.inside import Inside, comes_true, play
from tests.proxy.scripted import DONE, SSE_HEAD, Backend, Peer, Script, chunk, event, ok, post, read_message
from vllm_circus.bus.messages import ModelsMessage, ModelState
from vllm_circus.config.models import Queue
from vllm_circus.lifecycle.states import State

STREAM = b'{"model":"chat","stream":true}'
COMMENT = chunk(b": waiting for chat\n\n")
EVENTS = event(1) + event(2)
ASLEEP = ModelState("chat-1", State.SLEEPING, on_call=True)
READY = ModelState("chat-1", State.READY)
Story = Callable[[Inside], Awaitable[None]]


def tell(inside: Inside, *states: ModelState) -> None:
    sequence = inside.relay.models.sequence + 1 if inside.relay.models else 1
    inside.relay.take_models(ModelsMessage(0.0, 1, sequence, states))


def waiting(inside: Inside) -> int:
    return inside.relay.counters.models["chat-1"].waiting


def run(folder: Path, backend: Backend, story: Story, **queue: Any) -> None:
    models = replicas(backend.port, queue=Queue(**{"hold": 100, "comments": 2} | queue))
    play(folder, story, *models)


async def early(inside: Inside, data: bytes = post(STREAM)) -> tuple[Peer, bytes]:
    """A client that waits and has had a head and one comment, and this head."""
    tell(inside, ASLEEP)
    client = await inside.client(data)
    assert await comes_true(lambda: waiting(inside) == 1)
    await inside.pass_time(0.0)
    await inside.pass_time(2.0)
    head = await asyncio.to_thread(client.read_until, b"\r\n\r\n")
    assert await asyncio.to_thread(client.read_until, COMMENT) == COMMENT
    return client, head


async def rest(client: Peer, end: bytes = b"0\r\n\r\n") -> bytes:
    return await asyncio.to_thread(client.read_until, end)


def says(*pieces: bytes, ends: bool = False) -> Script:
    """An engine that answers with these pieces, one after the other."""

    def script(backend: Backend, peer: Peer) -> None:
        while True:
            backend.read_request(peer)
            for piece in pieces:
                peer.send(piece)
            if ends:
                peer.close()
                return

    return script


# what the client gets


def test_comments_come_first_and_then_the_engines_stream(backend: Backend, tmp_path: Path) -> None:
    backend.plays(says(SSE_HEAD, EVENTS, DONE))

    async def story(inside: Inside) -> None:
        client, head = await early(inside)
        lines = head.split(b"\r\n")
        assert lines[0] == b"HTTP/1.1 200 OK"
        assert {b"transfer-encoding: chunked", b"content-type: text/event-stream; charset=utf-8"} < set(lines)
        await inside.pass_time(1.0)
        await inside.pass_time(1.0)
        await inside.pass_time(2.0)
        assert await rest(client, COMMENT + COMMENT) == COMMENT * 2
        tell(inside, READY)
        data = await rest(client)
        assert payload(data) == payload(EVENTS + DONE)
        await asyncio.to_thread(client.send, post(STREAM))
        response = await asyncio.to_thread(read_message, client)
        assert response.body == payload(EVENTS + DONE), "the connection goes on, and nobody waits any more"
        counter = inside.relay.counters.models["chat-1"]
        assert (counter.statuses, counter.cut, counter.streams, counter.chunks) == ({200: 2}, 0, 2, 6)

    run(tmp_path, backend, story)


def payload(chunks: bytes) -> bytes:
    """What is in these chunks."""
    found = b""
    while chunks:
        size, _, chunks = chunks.partition(b"\r\n")
        found, chunks = found + chunks[: int(size, 16)], chunks[int(size, 16) + 2 :]
    return found


@pytest.mark.parametrize(
    "answer",
    [
        (SSE_HEAD + EVENTS + DONE,),
        (SSE_HEAD, EVENTS[:30], EVENTS[30:] + DONE[:5], DONE[5:]),
        (b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n", "whole"),
        (b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n", "to the end"),
    ],
    ids=["in one read", "in pieces", "of known length", "until the end"],
)
def test_however_the_engine_frames_it(backend: Backend, tmp_path: Path, answer: tuple[Any, ...]) -> None:
    whole = payload(EVENTS + DONE)
    if answer[-1] == "whole":
        answer = (answer[0] % len(whole) + whole,)
    ends = answer[-1] == "to the end"
    backend.plays(says(*((answer[0], whole) if ends else answer), ends=ends))

    async def story(inside: Inside) -> None:
        client, _ = await early(inside)
        tell(inside, READY)
        assert payload(await rest(client)) == whole
        await asyncio.to_thread(client.send, post(STREAM))
        await rest(client, b"\r\n\r\n")

    run(tmp_path, backend, story)


ERROR = b'{"error": {"message": "too long", "type": "BadRequestError", "param": null, "code": 400}}'


@pytest.mark.parametrize(
    ("answer", "shown"),
    [
        (ok(ERROR).replace(b"200 OK", b"400 Bad Request"), json.loads(ERROR)["error"]),
        (b"HTTP/1.1 400 Bad Request\r\ntransfer-encoding: chunked\r\n\r\n" + chunk(ERROR) + b"0\r\n\r\n", "too long"),
        (ok(b"oops").replace(b"200 OK", b"500 Internal Server Error"), "The engine answered with status 500."),
        (b"HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n", "The engine answered with status 500."),
        (ok(b'{"choices":[]}'), "The engine's answer is not a stream."),
        (b"nonsense\r\n\r\n", "The answer cannot be handed on"),
    ],
    ids=["400", "chunked 400", "500", "empty 500", "no stream", "nonsense"],
)
def test_what_would_have_been_another_status_is_an_event(
    backend: Backend, tmp_path: Path, answer: bytes, shown: Any
) -> None:
    backend.answers(answer)

    async def story(inside: Inside) -> None:
        client, _ = await early(inside)
        tell(inside, READY)
        assert_error(await asyncio.to_thread(client.read_all), shown)
        counter = inside.relay.counters.models["chat-1"]
        assert (counter.statuses, counter.cut, counter.in_flight) == ({200: 1}, 1, 0)

    run(tmp_path, backend, story)


def assert_error(data: bytes, shown: Any, start: bytes = b"data: ") -> None:
    """One event with this error, and no end of the body."""
    body = payload(data)
    assert body.startswith(start)
    assert body.endswith(b"\n\n")
    assert not data.endswith(b"0\r\n\r\n")
    assert b"[DONE]" not in body
    error = json.loads(body.removeprefix(start))["error"]
    assert error == shown or shown in error["message"]


@pytest.mark.parametrize(
    ("path", "start"),
    [(b"/v1/chat/completions", b"data: "), (b"/v1/responses", b"data: "), (b"/v1/messages", b"event: error\ndata: ")],
)
def test_nobody_ever_serves(backend: Backend, tmp_path: Path, path: bytes, start: bytes) -> None:
    async def story(inside: Inside) -> None:
        client, _ = await early(inside, post(STREAM, path=path))
        tell(inside, ModelState("chat-1", State.BACKOFF, "no memory"))
        assert_error(
            await asyncio.to_thread(client.read_all), "has crashed and will be started again: no memory", start
        )
        client, _ = await early(inside, post(STREAM, path=path))
        tell(inside, ASLEEP)
        await inside.pass_time(5.0)
        assert_error((await asyncio.to_thread(client.read_all)).removeprefix(COMMENT), "is asleep", start)

    run(tmp_path, backend, story, hold=6)


def test_an_engine_that_breaks_off_is_no_success(backend: Backend, tmp_path: Path) -> None:
    backend.plays(says(SSE_HEAD + event(1), ends=True))

    async def story(inside: Inside) -> None:
        client, _ = await early(inside)
        tell(inside, READY)
        data = await asyncio.to_thread(client.read_all)
        assert_error(data.removeprefix(event(1)), "closed the connection")

    run(tmp_path, backend, story)


def test_the_end_of_the_worker_is_told(backend: Backend, tmp_path: Path) -> None:
    async def story(inside: Inside) -> None:
        client, _ = await early(inside)
        inside.relay.drain()
        await inside.pass_time(2.0)
        assert await rest(client, COMMENT) == COMMENT
        inside.relay.end()
        assert_error(await asyncio.to_thread(client.read_all), "The proxy is being stopped")

    run(tmp_path, backend, story)


def test_a_draining_worker_serves_it_and_closes(backend: Backend, tmp_path: Path) -> None:
    backend.plays(says(SSE_HEAD, EVENTS, DONE))

    async def story(inside: Inside) -> None:
        client, _ = await early(inside)
        inside.relay.drain()
        tell(inside, READY)
        assert payload(await asyncio.to_thread(client.read_all)) == payload(EVENTS + DONE)

    run(tmp_path, backend, story)


def test_a_client_that_leaves_frees_its_place(backend: Backend, tmp_path: Path) -> None:
    async def story(inside: Inside) -> None:
        client, _ = await early(inside)
        client.close()
        assert await comes_true(lambda: waiting(inside) == 0)
        assert inside.relay.counters.models["chat-1"].statuses == {499: 1}
        assert inside.relay.fleet.wishes() == ()

    run(tmp_path, backend, story)


def test_a_request_behind_it_has_its_turn(backend: Backend, tmp_path: Path) -> None:
    backend.plays(says(SSE_HEAD, EVENTS, DONE))

    async def story(inside: Inside) -> None:
        client, _ = await early(inside, post(STREAM) + post(STREAM))
        tell(inside, READY)
        assert payload(await rest(client)) == payload(EVENTS + DONE)
        assert (await asyncio.to_thread(read_message, client)).body == payload(EVENTS + DONE)

    run(tmp_path, backend, story)


def test_it_waits_in_a_full_queue_as_well(backend: Backend, tmp_path: Path) -> None:
    held = Held(SSE_HEAD + EVENTS + DONE)
    backend.plays(held)

    async def story(inside: Inside) -> None:
        clients = [await inside.client(post(STREAM)) for _ in range(2)]
        assert await comes_true(lambda: waiting(inside) == 1)
        await inside.pass_time(0.0)
        await inside.pass_time(2.0)
        assert await rest(clients[1], COMMENT)
        held.let(2)
        for client in clients:
            assert await rest(client, b"data: [DONE]\n\n\r\n0\r\n\r\n")

    play(tmp_path, story, *replicas(backend.port, max_in_flight=1, queue=Queue(comments=2)))


# who gets none


@pytest.mark.parametrize(
    "data",
    [
        post(b'{"model":"chat"}'),
        post(b'{"model":"chat","stream":false}'),
        post(b'{"stream":true,"model":"chat","stream":false}'),
        post(b'{"model":"chat","a":{"stream":true}}'),
        post(STREAM, path=b"/v1/embeddings"),
        post(STREAM).replace(b"HTTP/1.1", b"HTTP/1.0"),
    ],
)
def test_others_are_answered_when_it_is_known_what_comes(backend: Backend, tmp_path: Path, data: bytes) -> None:
    async def story(inside: Inside) -> None:
        tell(inside, ASLEEP)
        client = await inside.client(data)
        assert await comes_true(lambda: waiting(inside) == 1)
        for _ in range(4):
            await inside.pass_time(2.0)
        tell(inside, ModelState("chat-1", State.FAILED))
        response = await asyncio.to_thread(read_message, client)
        assert response.status == 503

    run(tmp_path, backend, story)


def test_without_the_option_there_are_none(backend: Backend, tmp_path: Path) -> None:
    async def story(inside: Inside) -> None:
        tell(inside, ASLEEP)
        client = await inside.client(post(STREAM))
        assert await comes_true(lambda: waiting(inside) == 1)
        await inside.pass_time(9.0)
        tell(inside, ModelState("chat-1", State.FAILED))
        assert (await asyncio.to_thread(read_message, client)).status == 503

    run(tmp_path, backend, story, comments=None)


def test_a_usage_that_nobody_asked_for_is_taken_out_all_the_same(backend: Backend, tmp_path: Path) -> None:
    usage = chunk(b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}\n\n')
    backend.plays(says(SSE_HEAD, EVENTS, usage[:20], usage[20:] + DONE))

    async def story(inside: Inside) -> None:
        client, _ = await early(inside)
        tell(inside, READY)
        assert payload(await rest(client)) == payload(EVENTS + DONE)
        assert b'"include_usage":true' in backend.requests[0].body
        assert inside.relay.counters.models["chat-1"].completion_tokens == 4

    play(tmp_path, story, *replicas(backend.port, queue=Queue(hold=100, comments=2)), exact_usage=True)
