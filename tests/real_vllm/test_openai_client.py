"""OpenAI's Python client: it gets the same through the proxy as from the engine itself, and raises the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.real_vllm.agree import (
    Pair,
    Question,
    Side,
    assert_agree,
    assert_refused_alike,
    assert_refused_by_us,
)
from tests.real_vllm.fleet import LORA_A, MODEL_A, MODEL_POOL, ROOM_A
from tests.real_vllm.questions import (
    ANSWER_SCHEMA,
    CHAT_TOOL,
    HELLO,
    LONG,
    TOOL,
    chat,
    completion,
    embedding,
    response,
    transcription,
)

pytestmark = pytest.mark.timeout(900)

#: How to ask, and what is special about the request.
Case = tuple[Callable[..., Question], dict[str, Any]]

IN_SCHEMA = {"type": "json_schema", "json_schema": ANSWER_SCHEMA}
USE_TOOL = {"tools": [CHAT_TOOL], "tool_choice": {"type": "function", "function": {"name": "weather"}}}
RESPONSE_TOOLS = [{"type": "function", **TOOL}]

ANSWERED: dict[str, Case] = {
    "a chat": (chat, {}),
    "a chat with a system message": (chat, {"messages": [{"role": "system", "content": "Be kind."}, *HELLO]}),
    "a chat with an adapter": (chat, {"model": LORA_A}),
    "a chat with a stop word": (chat, {"stop": ["r"], "max_tokens": 100}),
    "a chat with two choices": (chat, {"n": 2, "temperature": 1}),
    "a chat with logprobs": (chat, {"logprobs": True, "top_logprobs": 2}),
    "a chat with a tool to use": (chat, {**USE_TOOL, "max_tokens": 40}),
    "a chat with a tool at hand": (chat, {"tools": [CHAT_TOOL], "tool_choice": "auto"}),
    "a chat in a schema": (chat, {"response_format": IN_SCHEMA, "max_tokens": 60}),
    "a chat in JSON": (chat, {"response_format": {"type": "json_object"}}),
    "a chat with a field that nobody knows": (chat, {"extra_body": {"nonsense": 1}}),
    "a completion": (completion, {}),
    "a completion of two prompts": (completion, {"prompt": ["Once", "Hello"]}),
    "a completion of tokens": (completion, {"prompt": [50, 60, 70]}),
    "a completion with logprobs": (completion, {"logprobs": 1, "echo": True}),
    "a response": (response, {}),
    "a response to instructions": (response, {"instructions": "Be kind.", "input": HELLO}),
    "a response with a tool to use": (
        response,
        {"tools": RESPONSE_TOOLS, "tool_choice": {"type": "function", "name": "weather"}},
    ),
    "a response in a schema": (
        response,
        {"text": {"format": {"type": "json_schema", **ANSWER_SCHEMA}}, "max_output_tokens": 60},
    ),
    "a response that is not kept": (response, {"store": False}),
}
REFUSED: dict[str, Case] = {
    "a negative temperature": (chat, {"temperature": -1}),
    "a temperature in words": (chat, {"temperature": "warm"}),
    "top_p above one": (chat, {"top_p": 7}),
    "no tokens at all": (chat, {"max_tokens": 0}),
    "too many tokens": (chat, {"max_tokens": 100_000}),
    "tokens in words": (chat, {"max_tokens": "many"}),
    "too long a chat": (chat, {"messages": [{"role": "user", "content": LONG}]}),
    "no messages": (chat, {"messages": []}),
    "messages that are none": (chat, {"messages": "Hello"}),
    "an image for a model without eyes": (
        chat,
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,x"}}]}]},
    ),
    "no choices": (chat, {"n": 0}),
    "a tool that is not there": (chat, {**USE_TOOL, "tool_choice": {"type": "function", "function": {"name": "no"}}}),
    "a schema that is none": (
        chat,
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nope"}}}},
    ),
    "a bias for a token that is not there": (chat, {"logit_bias": {"99999": 1}}),
    "too many logprobs": (chat, {"logprobs": True, "top_logprobs": 1000}),
    "too long a prompt": (completion, {"prompt": LONG}),
    "an empty prompt": (completion, {"prompt": ""}),
    "a prompt that is null": (completion, {"prompt": None}),
    "tokens that are not there": (completion, {"prompt": [99_999]}),
    "a suffix": (completion, {"suffix": "x"}),
    "too long an input": (response, {"input": LONG}),
    "output tokens in words": (response, {"max_output_tokens": "many"}),
    "an answer to a response that is not there": (response, {"previous_response_id": "resp_nope"}),
    "in the background, but not kept": (response, {"background": True, "store": False}),
}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("what", ANSWERED)
def test_an_answer_is_the_engines(pair: Pair, what: str, stream: bool) -> None:
    ask, changes = ANSWERED[what]
    assert_agree(pair, ask(**changes, stream=stream))


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("what", REFUSED)
def test_a_refusal_is_the_engines(pair: Pair, what: str, stream: bool) -> None:
    ask, changes = REFUSED[what]
    assert_refused_alike(pair, ask(**changes, stream=stream))


def test_the_usage_of_a_stream_is_the_engines(pair: Pair) -> None:
    answer = assert_agree(pair, chat(stream=True, stream_options={"include_usage": True}))
    assert '"completion_tokens": 12' in str(answer)
    assert_refused_alike(pair, chat(stream_options={"include_usage": True}))


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("ask", [chat, completion, response, embedding])
def test_an_unknown_model_raises_what_it_raises_directly(
    pair: Pair, pooling_pair: Pair, ask: Callable[..., Question], stream: bool
) -> None:
    changes = {} if ask is embedding else {"stream": stream}
    to = pooling_pair if ask is embedding else pair
    assert_refused_by_us(to, ask(model="nobody", **changes), "model_not_found")


@pytest.mark.parametrize("model", [5, ["tiny-a"], {"name": "tiny-a"}, True], ids=str)
def test_a_model_that_is_no_name_raises_what_it_raises_directly(pair: Pair, model: object) -> None:
    assert_refused_by_us(pair, chat(model=model), "bad_model")


def kept(**changes: Any) -> Callable[[Side], Any]:
    """Makes a response and returns its id, whether it was streamed or not."""

    def make(side: Side) -> str:
        answer = response(**changes)(side)
        events = list(answer) if changes.get("stream") else []
        return str(events[0].response.id if events else answer.id)

    return make


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_kept_response_is_found_again(pair: Pair, stream: bool) -> None:
    make = kept(stream=stream)
    assert assert_agree(pair, lambda side: side.openai.responses.retrieve(make(side)))["status"] == "incomplete"
    assert_agree(pair, lambda side: response(previous_response_id=make(side))(side))
    assert_refused_alike(pair, lambda side: side.openai.responses.cancel(make(side)))
    assert_refused_alike(pair, lambda side: side.openai.responses.delete(make(side)))


def test_a_response_in_the_background_is_cancelled(pair: Pair) -> None:
    make = kept(background=True, max_output_tokens=ROOM_A - 100, extra_body={"ignore_eos": True})

    def question(side: Side) -> list[object]:
        made = make(side)
        return [side.openai.responses.cancel(made).status, side.openai.responses.retrieve(made).status]

    assert assert_agree(pair, question) == ["cancelled", "cancelled"]


def test_a_stream_of_a_response_in_the_background_is_taken_up_again(pair: Pair) -> None:
    make = kept(background=True, stream=True)
    events = assert_agree(pair, lambda side: side.openai.responses.retrieve(make(side), stream=True))
    assert "response.incomplete" in str(events[-1]) or "response.completed" in str(events[-1])


def test_models_are_listed_as_the_engine_names_them(pair: Pair) -> None:
    through = {model.id: model for model in pair.through.openai.models.list()}
    for direct in pair.direct.openai.models.list():
        listed = through[direct.id]
        assert (listed.object, type(listed.created)) == (direct.object, int)
    assert pair.through.openai.models.retrieve(MODEL_A) == through[MODEL_A]
    for name, model in through.items():  # the client writes a slash as %2F
        assert pair.through.openai.models.retrieve(name) == model
    assert_refused_by_us(pair, lambda side: side.openai.models.retrieve("nobody"), "model_not_found")


@pytest.mark.parametrize("ask", ["retrieve", "cancel"])
def test_a_response_that_is_not_there_raises_what_it_raises_directly(pair: Pair, ask: str) -> None:
    assert_refused_by_us(pair, lambda side: getattr(side.openai.responses, ask)("resp_0"), "response_not_found")


EMBEDDED: dict[str, dict[str, Any]] = {
    "one text": {},
    "two texts": {"input": ["a", "b"]},
    "tokens": {"input": [50, 60]},
    "as numbers": {"encoding_format": "float"},
    "as base64": {"encoding_format": "base64"},
}
NOT_EMBEDDED: dict[str, dict[str, Any]] = {
    "too long a text": {"input": LONG},
    "no text": {"input": []},
    "fewer dimensions": {"dimensions": 8},
    "in a format that is none": {"encoding_format": "runes"},
}


@pytest.mark.parametrize("what", EMBEDDED)
def test_an_embedding_is_the_engines(pooling_pair: Pair, what: str) -> None:
    assert_agree(pooling_pair, embedding(**EMBEDDED[what]))


@pytest.mark.parametrize("what", NOT_EMBEDDED)
def test_a_refused_embedding_is_the_engines(pooling_pair: Pair, what: str) -> None:
    assert_refused_alike(pooling_pair, embedding(**NOT_EMBEDDED[what]))


def test_what_a_model_is_not_made_for_is_refused_by_its_engine(pair: Pair, pooling_pair: Pair) -> None:
    assert_refused_alike(pair, embedding(model=MODEL_A))
    assert_refused_alike(pair, transcription(MODEL_A))
    assert_refused_alike(pooling_pair, chat(model=MODEL_POOL))
    assert_refused_alike(pooling_pair, transcription(MODEL_POOL))


def test_a_form_for_an_unknown_model_raises_what_it_raises_directly(pair: Pair) -> None:
    assert_refused_by_us(pair, transcription("nobody"), "model_not_found")


@pytest.mark.parametrize(
    "question",
    [
        lambda side: side.openai.files.list(),
        lambda side: side.openai.images.generate(model=MODEL_A, prompt="A cat"),
        lambda side: side.openai.moderations.create(model=MODEL_A, input="A cat"),
        lambda side: side.openai.audio.speech.create(model=MODEL_A, voice="x", input="A cat").read(),
        lambda side: side.openai.responses.input_items.list("resp_0"),
    ],
    ids=["files", "images", "moderations", "speech", "input items"],
)
def test_what_no_engine_has_raises_what_it_raises_directly(pair: Pair, question: Question) -> None:
    assert_refused_by_us(pair, question, "unknown_path")
