"""Names that an engine does not know yet: the proxy writes the model's own in their place."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.proxy.bus import Bus, bus_of
from tests.proxy.conftest import Start, Worker, a_model
from tests.proxy.engines import engines, replicas
from tests.proxy.scripted import Backend, chunk, get, ok, post
from vllm_circus.bus.messages import ModelState
from vllm_circus.config.models import Limits, RequestRules
from vllm_circus.lifecycle.states import State
from vllm_circus.plan.types import ModelPlan
from vllm_circus.proxy.bodymodel import FormModel
from vllm_circus.proxy.head import parse_head
from vllm_circus.proxy.naming import in_form, in_json, in_query

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


# what is written


@given(st.dictionaries(st.text(max_size=6), VALUES, max_size=4), st.booleans(), st.text(min_size=1, max_size=9))
def test_a_body_differs_in_its_model_and_in_nothing_else(members: dict[str, Any], pretty: bool, name: str) -> None:
    document = members | {"model": "new", "nested": {"model": "new"}}
    body = json.dumps(document, indent=2 if pretty else None).encode()
    assert json.loads(in_json(body, name)) == document | {"model": name}
    assert in_json(in_json(body, name), "new") == body


def test_a_name_that_comes_twice_or_escaped_is_renamed_each_time() -> None:
    body = rb'{ "model" : "new", "a": "model", "mod\u0065l":"new"}'
    assert in_json(body, "chat") == rb'{ "model" : "chat", "a": "model", "mod\u0065l":"chat"}'


def form(*parts: tuple[bytes, bytes]) -> bytes:
    lines = [b"--XX\r\nContent-Disposition: form-data; %b\r\n\r\n%b\r\n" % part for part in parts]
    return b"".join(lines) + b"--XX--\r\n"


@pytest.mark.parametrize("value", [b"new", b"n", b"new" * 100])
def test_a_form_differs_in_the_field_model_and_in_nothing_else(value: bytes) -> None:
    file = (b'name="file"; filename="model"', b'name="model"\r\n\r\nnew\r\n--X' + bytes(range(256)))
    parts = (b'name="prompt"', b"model"), (b'name="model"', value), file, (b"name=empty", b"")
    content_type = b'multipart/form-data; boundary="XX"'
    changed = in_form(form(*parts), content_type, "chat")
    assert changed == form(parts[0], (b'name="model"', b"chat"), *parts[2:])
    finder = FormModel(content_type)
    finder.feed(changed)
    finder.finish()
    assert finder.name == "chat"


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        (b"model=new", b"model=a%2Fb"),
        (b"x=1&model=new&amodel=new&y", b"x=1&model=a%2Fb&amodel=new&y"),
        (b"model=new&model=new", b"model=a%2Fb&model=a%2Fb"),
    ],
)
def test_a_query_differs_in_its_model_and_in_nothing_else(query: bytes, wanted: bytes) -> None:
    head = parse_head(b"GET /load?%b HTTP/1.1\r\nHost: x\r\n\r\n" % query, Limits())
    changed = in_query(head, "a/b")
    assert (changed.query, changed.start) == (wanted, b"GET /load?%b HTTP/1.1\r\n" % wanted)
    assert changed.rest == head.rest


# when it is written


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


def told(start: Start, stack: ExitStack, *states: ModelState, models: tuple[ModelPlan, ...]) -> tuple[Worker, Bus]:
    worker = start(*models)
    bus = stack.enter_context(bus_of(worker))
    assert bus.acted_on(bus.says(*states))
    return worker, bus


def knowing(*names: str, number: int = 1) -> ModelState:
    return ModelState(f"chat-{number}", State.READY, names=names)


def test_a_new_alias_reaches_an_engine_that_was_started_without_it(
    start: Start, stack: ExitStack, backend: Backend
) -> None:
    models = replicas(backend.port, names=("chat", "new", "old"))
    worker, bus = told(start, stack, knowing("chat", "old"), models=models)
    asked = [b'{"model": "%b", "n": 1}' % name for name in (b"new", b"old", b"chat")]
    for body in asked:
        assert worker.chat(body).status == 200
    chunked = post(b"", b"Transfer-Encoding: chunked").replace(b"Content-Length: 0\r\n", b"")
    assert worker.ask(chunked + chunk(asked[0][:8]) + chunk(asked[0][8:]) + b"0\r\n\r\n").status == 200
    large = b'{"model":"new","pad":"' + b"x" * 400_000 + b'"}'
    assert worker.chat(large).status == 200
    whole = large.replace(b"new", b"chat")
    first = b'{"model": "chat", "n": 1}'
    assert [request.body for request in backend.requests] == [first, *asked[1:], first, whole]
    assert bus.acted_on(bus.says(ModelState("chat-1", State.READY)))
    assert worker.chat(asked[0]).status == 200
    assert backend.requests[-1].body == asked[0], "started anew, it knows the name"


def test_forms_and_queries_are_renamed_as_well(start: Start, stack: ExitStack, backend: Backend) -> None:
    worker, _ = told(start, stack, knowing("chat"), models=replicas(backend.port, names=("chat", "new")))
    body = form((b'name="model"', b"new"), (b'name="file"; filename="a.wav"', b"new"))
    head = b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=XX\r\n"
    assert worker.ask(head + b"Content-Length: %d\r\n\r\n" % len(body) + body).status == 200
    assert backend.requests[0].body == form((b'name="model"', b"chat"), (b'name="file"; filename="a.wav"', b"new"))
    assert worker.ask(get(b"/load?model=new")).status == 200
    assert backend.requests[1].start == b"GET /load?model=chat HTTP/1.1"


def test_rules_apply_beside_it(start: Start, stack: ExitStack, backend: Backend) -> None:
    rules = RequestRules(defaults={"top_k": 5})
    worker, _ = told(start, stack, knowing("chat"), models=replicas(backend.port, names=("chat", "new"), request=rules))
    assert worker.chat(b'{"model":"new"}').status == 200
    assert backend.requests[0].body == b'{"model":"chat","top_k":5}'


def test_each_replica_is_asked_by_the_names_that_it_knows(start: Start, stack: ExitStack) -> None:
    backends = stack.enter_context(engines(2))
    models = replicas(*(it.port for it in backends), names=("chat", "new"))
    worker, _ = told(start, stack, knowing("chat"), ModelState("chat-2", State.READY), models=models)
    for _ in range(4):
        assert worker.chat(b'{"model":"new"}').status == 200
    assert {request.body for request in backends[0].requests} == {b'{"model":"chat"}'}
    assert {request.body for request in backends[1].requests} == {b'{"model":"new"}'}


def test_a_fallback_that_does_not_know_the_name_is_asked_by_its_own(start: Start, stack: ExitStack) -> None:
    big, small = stack.enter_context(engines(2))
    small.answers(ok(b"small"))
    models = a_model("big", big.port, names=("big", "new"), fallback="small"), a_model("small", small.port)
    states = ModelState("big", State.FAILED), ModelState("small", State.READY, names=("small", "big"))
    worker, _ = told(start, stack, *states, models=models)
    for name in (b"big", b"new"):
        assert worker.chat(b'{"model":"%b"}' % name).body == b"small"
    assert [request.body for request in small.requests] == [b'{"model":"big"}', b'{"model":"small"}']
