"""Requests that are refused, in the words of the real server."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from .running import Running, Simulate

ASK = [{"role": "user", "content": "hi"}]
LONG = [{"role": "user", "content": "hello world " * 600}]


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        (
            {"model": "nope", "messages": ASK},
            404,
            (
                b'{"error":{"message":"The model `nope` does not exist. Valid aliases: first, second.",'
                b'"type":"NotFoundError","param":"model","code":404}}'
            ),
        ),
        (
            {"model": 5, "messages": ASK},
            400,
            (
                b"{\"error\":{\"message\":\"1 validation error:\\n  {'type': 'string_type', 'loc': 'body.model', "
                b"'msg': 'Input should be a valid string', 'input': '5'}\","
                b'"type":"Bad Request","param":"body.model","code":400}}'
            ),
        ),
        (
            b'{"model": "a", ',
            400,
            (
                b"{\"error\":{\"message\":\"1 validation error:\\n  {'type': 'json_invalid', 'loc': 'body.15', "
                b"'msg': 'JSON decode error', 'input': '<dict of 0 items>', 'ctx': "
                b"{'error': 'Expecting property name enclosed in double quotes'}}\","
                b'"type":"Bad Request","param":"body.15","code":400}}'
            ),
        ),
        (
            b"",
            400,
            (
                b"{\"error\":{\"message\":\"1 validation error:\\n  {'type': 'missing', 'loc': 'body', "
                b'\'msg\': \'Field required\', \'input\': \'None\'}","type":"Bad Request","param":"body","code":400}}'
            ),
        ),
        (
            b"[]",
            400,
            (
                b"{\"error\":{\"message\":\"1 validation error:\\n  {'type': 'model_attributes_type', 'loc': 'body', "
                b"'msg': 'Input should be a valid dictionary or object to extract fields from', "
                b'\'input\': \'<list of 0 items>\'}","type":"Bad Request","param":"body","code":400}}'
            ),
        ),
        (
            {"model": "first"},
            400,
            (
                b"{\"error\":{\"message\":\"1 validation error:\\n  {'type': 'missing', 'loc': 'body.messages', "
                b"'msg': 'Field required', 'input': '<dict of 1 items>'}\","
                b'"type":"Bad Request","param":"body.messages","code":400}}'
            ),
        ),
        (
            {"messages": []},
            400,
            (
                b'{"error":{"message":"Cannot apply chat template to an empty conversation. Provide at least one '
                b'message.","type":"BadRequestError","param":null,"code":400}}'
            ),
        ),
        (
            {"messages": LONG, "stream": True},
            400,
            (
                b'{"error":{"message":"This model\'s maximum context length is 512 tokens. However, your prompt '
                b"contains 7224 characters (more than 6144 characters, which is the upper bound for "
                b'512 input tokens). Please reduce the length of the input prompt. (parameter=input_text, value=7224)",'
                b'"type":"BadRequestError","param":"input_text","code":400}}'
            ),
        ),
        (
            {"messages": [{"role": "user", "content": "a b c d " * 200}]},
            400,
            (
                b'{"error":{"message":"This model\'s maximum context length is 512 tokens. However, your prompt '
                b"contains at least 513 input tokens, which exceeds this limit even without any output tokens. "
                b'Please reduce the length of the input prompt. (parameter=input_tokens, value=513)",'
                b'"type":"BadRequestError","param":"input_tokens","code":400}}'
            ),
        ),
        (
            {"messages": ASK, "max_tokens": 5000},
            400,
            (
                b'{"error":{"message":"max_tokens=5000 cannot be greater than max_model_len=512. Please request fewer '
                b'output tokens. (parameter=max_tokens, value=5000)","type":"BadRequestError","param":"max_tokens",'
                b'"code":400}}'
            ),
        ),
        (
            {"messages": ASK, "max_tokens": 0},
            400,
            (
                b'{"error":{"message":"max_tokens must be at least 1, got 0. (parameter=max_tokens, value=0)",'
                b'"type":"BadRequestError","param":"max_tokens","code":400}}'
            ),
        ),
        (
            {"messages": ASK, "max_tokens": "x"},
            400,
            (
                b"{\"error\":{\"message\":\"1 validation error:\\n  {'type': 'int_parsing', 'loc': 'body.max_tokens', "
                b"'msg': 'Input should be a valid integer, unable to parse string as an integer', 'input': 'x'}\","
                b'"type":"Bad Request","param":"body.max_tokens","code":400}}'
            ),
        ),
        (
            {"messages": ASK, "temperature": -1},
            400,
            (
                b'{"error":{"message":"temperature must be non-negative, got -1.0. (parameter=temperature, value=-1.0)'
                b'","type":"BadRequestError","param":"temperature","code":400}}'
            ),
        ),
        (
            {"messages": ASK, "n": 0},
            400,
            b'{"error":{"message":"n must be at least 1, got 0.","type":"BadRequestError","param":null,"code":400}}',
        ),
    ],
    ids=[
        "unknown model",
        "model that is no text",
        "broken JSON",
        "no body",
        "list",
        "no messages",
        "empty conversation",
        "too many characters",
        "too many tokens",
        "answer too long",
        "empty answer",
        "length that is no number",
        "too cold",
        "no answer wanted",
    ],
)
def test_a_chat_that_is_refused(server: Running, body: object, status: int, error: bytes) -> None:
    answer = server.ask("POST", "/v1/chat/completions", body)
    assert (answer.status, answer.headers["content-type"]) == (status, "application/json")
    assert answer.body == error


def test_a_body_that_is_not_said_to_be_json_is_refused(server: Running) -> None:
    answer = server.ask("POST", "/v1/chat/completions", b"{}", {"Content-Type": "text/plain"})
    assert answer.body == (
        b'{"error":{"message":"1 validation error:\\n  Unsupported Media Type: Only \'application/json\' is allowed",'
        b'"type":"Bad Request","param":null,"code":400}}'
    )


def test_a_completion_without_a_prompt_is_refused(server: Running) -> None:
    assert server.ask("POST", "/v1/completions", {}).body == (
        b'{"error":{"message":"Either prompt or prompt_embeds must be provided and non-empty. (parameter=prompt)",'
        b'"type":"BadRequestError","param":"prompt","code":400}}'
    )


def test_messages_have_errors_of_their_own_form(server: Running) -> None:
    unknown = server.ask("POST", "/v1/messages", {"model": "q", "max_tokens": 3, "messages": ASK})
    assert unknown.status == 404
    assert unknown.body == (
        b'{"type":"error","error":{"type":"NotFoundError",'
        b'"message":"The model `q` does not exist. Valid aliases: first, second."}}'
    )
    too_long = server.ask("POST", "/v1/messages", {"model": "first", "max_tokens": 3, "messages": LONG})
    assert too_long.json["error"]["type"] == "BadRequestError"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"messages": ASK, "max_tokens": 3}, "body.model"),
        ({"model": "", "messages": ASK, "max_tokens": 3}, "body.model"),
        ({"model": None, "messages": ASK, "max_tokens": 3}, "body.model"),
        ({"model": "first", "messages": ASK}, "body.max_tokens"),
    ],
)
def test_messages_want_their_model_and_length(server: Running, body: object, field: str) -> None:
    error = server.ask("POST", "/v1/messages", body).json["error"]
    assert (error["type"], error["param"], error["code"]) == ("Bad Request", field, 400)


def test_a_server_with_one_name_lists_no_aliases(simulate: Simulate) -> None:
    one = simulate()
    assert one.chat(model="q").json["error"]["message"] == "The model `q` does not exist."


_BODIES = st.dictionaries(
    st.sampled_from(
        [
            "model",
            "messages",
            "prompt",
            "input",
            "max_tokens",
            "n",
            "stop",
            "stream",
            "stream_options",
            "tokens",
            "echo",
        ]
    ),
    st.recursive(
        st.none() | st.booleans() | st.integers(-3, 5) | st.floats(-1, 1) | st.text(max_size=3),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["role", "content"]), inner),
        max_leaves=5,
    ),
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(
        [
            "/v1/chat/completions",
            "/v1/completions",
            "/v1/messages",
            "/v1/messages/count_tokens",
            "/v1/responses",
            "/tokenize",
            "/detokenize",
            "/invocations",
        ]
    ),
    _BODIES,
)
@example("/v1/completions", {"prompt": [["text"]]})
def test_nothing_that_a_client_sends_is_the_fault_of_the_server(server: Running, path: str, body: object) -> None:
    answer = server.ask("POST", path, body)
    assert answer.status in (200, 400, 404), answer.body
