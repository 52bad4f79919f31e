"""The client library that people use, against the simulator."""

from __future__ import annotations

import openai
import pytest

from .running import Running, Simulate


@pytest.fixture
def client(server: Running) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key="none", max_retries=0)


def test_the_client_lists_chats_streams_and_completes(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["first", "second", "sql"]
    chat = client.chat.completions.create(model="first", messages=[{"role": "user", "content": "hi"}], max_tokens=4)
    assert chat.choices[0].message.content == "This is a simulated"
    stream = client.chat.completions.create(
        model="first", messages=[{"role": "user", "content": "hi"}], max_tokens=4, stream=True
    )
    assert "".join(part.choices[0].delta.content or "" for part in stream) == "This is a simulated"
    assert client.completions.create(model="sql", prompt="hi", max_tokens=1).choices[0].text == "This"


def test_the_client_understands_responses(client: openai.OpenAI) -> None:
    answer = client.responses.create(model="first", input="hi", max_output_tokens=4)
    assert answer.output_text == "This is a simulated"
    with client.responses.stream(model="first", input="hi", max_output_tokens=4) as stream:
        kinds = [event.type for event in stream]
    assert kinds[-1] == "response.completed"


def test_the_client_understands_errors(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="The model `nope` does not exist"):
        client.chat.completions.create(model="nope", messages=[{"role": "user", "content": "hi"}])


def test_the_client_reads_embeddings(simulate: Simulate) -> None:
    one = simulate("--runner", "pooling")
    client = openai.OpenAI(base_url=f"http://127.0.0.1:{one.port}/v1", api_key="none", max_retries=0)
    assert len(client.embeddings.create(model="org/tiny", input="hi").data[0].embedding) == 384
