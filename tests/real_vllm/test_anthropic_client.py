"""Anthropic's Python client: it gets the same through the proxy as from the engine itself, and raises the same."""

from __future__ import annotations

from typing import Any

import pytest

from tests.real_vllm.agree import Pair, Side, assert_agree, assert_refused_alike, assert_refused_by_us
from tests.real_vllm.fleet import LORA_A, MODEL_A, MODEL_POOL
from tests.real_vllm.questions import ANTHROPIC_TOOL, HELLO, LONG, count, message

pytestmark = pytest.mark.timeout(900)

ANSWERED: dict[str, dict[str, Any]] = {
    "a message": {},
    "a system prompt": {"system": "Be kind."},
    "an adapter": {"model": LORA_A},
    "content in blocks": {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}]},
    "a conversation": {"messages": [*HELLO, {"role": "assistant", "content": "Hi"}, *HELLO]},
    "a stop word": {"stop_sequences": ["r"], "max_tokens": 60},
    "a tool to use": {
        "tools": [ANTHROPIC_TOOL],
        "tool_choice": {"type": "tool", "name": "weather"},
        "max_tokens": 40,
    },
    "any tool": {"tools": [ANTHROPIC_TOOL], "tool_choice": {"type": "any"}, "max_tokens": 40},
    "a field that nobody knows": {"extra_body": {"nonsense": 1}},
    "headers of its own": {"extra_headers": {"anthropic-beta": "x"}, "metadata": {"user_id": "somebody"}},
}
REFUSED: dict[str, dict[str, Any]] = {
    "no messages": {"messages": []},
    "no tokens at all": {"max_tokens": 0},
    "too many tokens": {"max_tokens": 100_000},
    "tokens in words": {"max_tokens": "many"},
    "too long a message": {"messages": [{"role": "user", "content": LONG}]},
    "a negative temperature": {"extra_body": {"temperature": -1}},
    "a role that is none": {"messages": [{"role": "king", "content": "Hello"}]},
}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("what", ANSWERED)
def test_a_message_is_the_engines(pair: Pair, what: str, stream: bool) -> None:
    assert_agree(pair, message(**ANSWERED[what], stream=stream))


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("what", REFUSED)
def test_a_refusal_is_the_engines(pair: Pair, what: str, stream: bool) -> None:
    assert_refused_alike(pair, message(**REFUSED[what], stream=stream))


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_an_unknown_model_raises_what_it_raises_directly(pair: Pair, stream: bool) -> None:
    assert_refused_by_us(pair, message(model="nobody", stream=stream), "model_not_found")


@pytest.mark.parametrize(("model", "ours"), [("", "missing_model"), (None, "missing_model"), (5, "bad_model")])
def test_a_model_that_is_no_name_raises_what_it_raises_directly(pair: Pair, model: object, ours: str) -> None:
    assert_refused_by_us(pair, message(model=model), ours)


def test_a_model_without_messages_refuses_them_itself(pooling_pair: Pair) -> None:
    assert_refused_alike(pooling_pair, message(model=MODEL_POOL))
    assert_refused_alike(pooling_pair, count(model=MODEL_POOL))


def test_the_clients_own_way_to_stream_works(pair: Pair) -> None:
    def question(side: Side) -> dict[str, object]:
        asked: Any = {"model": MODEL_A, "messages": HELLO, "max_tokens": 12, "extra_body": {"temperature": 0}}
        with side.anthropic.messages.stream(**asked) as stream:
            return {"text": "".join(stream.text_stream), "message": stream.get_final_message()}

    assert assert_agree(pair, question)["text"]


def test_tokens_are_counted_as_the_engine_counts_them(pair: Pair) -> None:
    assert assert_agree(pair, count())["input_tokens"] > 0
    assert_agree(pair, count(tools=[ANTHROPIC_TOOL], system="Be kind."))
    assert_refused_alike(pair, count(messages=[]))
    assert_refused_by_us(pair, count(model="nobody"), "model_not_found")
