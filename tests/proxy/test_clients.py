"""A real client of OpenAI's, through the proxy."""

from __future__ import annotations

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from tests.proxy.conftest import Worker
from tests.proxy.scripted import DONE, SSE_HEAD, Backend, Peer, event, ok

ANSWER = (
    b'{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"alpha","choices":[{"index":0,"message":'
    b'{"role":"assistant","content":"hello"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1,'
    b'"total_tokens":2}}'
)
MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hi"}]


@pytest.fixture
def client(worker: Worker) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"http://127.0.0.1:{worker.port}/v1", api_key="sk-any", max_retries=0)


def begins_to_answer(backend: Backend, peer: Peer) -> None:
    backend.read_request(peer)  # what came before it would be nobody's answer
    peer.send(SSE_HEAD + event(1))


def test_it_lists_asks_and_streams(client: openai.OpenAI, alpha: Backend) -> None:
    assert {model.id for model in client.models.list()} >= {"alpha", "beta", "Org/Alpha"}
    alpha.answers(ok(ANSWER))
    answer = client.chat.completions.create(model="Org/Alpha", messages=MESSAGES)
    assert answer.choices[0].message.content == "hello"
    alpha.answers(SSE_HEAD + event(1) + event(2) + DONE)
    stream = client.chat.completions.create(model="alpha", messages=MESSAGES, stream=True)
    assert [part.choices[0].delta.content for part in stream] == ["1", "2"]


def test_it_understands_our_errors(client: openai.OpenAI, alpha: Backend) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(model="nope", messages=MESSAGES)
    assert unknown.value.code == "model_not_found"
    alpha.plays(begins_to_answer)
    stream = client.chat.completions.create(model="alpha", messages=MESSAGES, stream=True)
    assert next(stream).choices[0].delta.content == "1"
    alpha.forget()
    with pytest.raises(openai.APIError, match="closed the connection"):
        list(stream)
