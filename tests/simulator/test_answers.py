"""Chats, completions, messages and responses: whole answers and streams, byte for byte."""

from __future__ import annotations

import json

import pytest

from .running import Running, Simulate, dechunk, steady, take_apart

ASK = {"messages": [{"role": "user", "content": "hi there"}]}
IDENTIFIED = {"X-Request-Id": "abc"}


def test_a_chat_has_the_fields_of_the_real_one_in_their_order(server: Running) -> None:
    answer = server.raw("POST", "/v1/chat/completions", {"model": "second", "max_tokens": 4, **ASK}, IDENTIFIED)
    assert steady(take_apart(answer).body) == (
        b'{"id":"chatcmpl-abc","object":"chat.completion","created":0,"model":"first","choices":[{"index":0,"message":'
        b'{"role":"assistant","content":"This is a simulated","refusal":null,"annotations":null,"audio":null,'
        b'"function_call":null,"reasoning":null},"logprobs":null,"finish_reason":"length","stop_reason":null,'
        b'"token_ids":null,"routed_experts":null}],"service_tier":null,"system_fingerprint":"vllm-0.32.0-simulated",'
        b'"usage":{"prompt_tokens":11,"total_tokens":15,"completion_tokens":4,"prompt_tokens_details":null,'
        b'"completion_tokens_details":null},"prompt_logprobs":null,"prompt_token_ids":null,"prompt_text":null,'
        b'"kv_transfer_params":null,"ec_transfer_params":null,"metrics":null}'
    )


def test_a_stream_of_a_chat_sends_an_event_a_chunk(server: Running) -> None:
    body = {"max_tokens": 2, "stream": True, **ASK}
    raw = steady(server.raw("POST", "/v1/chat/completions", body, IDENTIFIED))
    head = b'data: {"id":"chatcmpl-abc","object":"chat.completion.chunk","created":0,"model":"first","choices":'
    assert raw.startswith(
        b"HTTP/1.1 200 OK\r\ndate: DATE\r\nserver: uvicorn\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
        b"vary: Origin\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    chunks = raw.partition(b"\r\n\r\n")[2].split(b"\r\n")
    assert chunks[1::2] == [
        head + b'[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],'
        b'"prompt_token_ids":null,"prompt_text":null}\n\n',
        head + b'[{"index":0,"delta":{"content":"This"},"logprobs":null,"finish_reason":null,"token_ids":null}]}\n\n',
        head + b'[{"index":0,"delta":{"content":" is"},"logprobs":null,"finish_reason":"length","stop_reason":null,'
        b'"token_ids":null}],"system_fingerprint":"vllm-0.32.0-simulated"}\n\n',
        b"data: [DONE]\n\n",
        b"",
    ]
    assert chunks[-3:] == [b"0", b"", b""]


def test_the_sizes_of_the_chunks_are_right(server: Running) -> None:
    answer = server.chat(max_tokens=3, stream=True)
    assert dechunk(answer.body).endswith(b"data: [DONE]\n\n")


def test_usage_comes_last_for_who_asks(server: Running) -> None:
    events = server.chat(max_tokens=3, stream=True, stream_options={"include_usage": True}).events
    assert json.loads(events[-2])["choices"] == []
    assert json.loads(events[-2])["usage"] == {"prompt_tokens": 10, "total_tokens": 13, "completion_tokens": 3}
    assert all("usage" not in json.loads(event) for event in events[:-2])


def test_usage_comes_always_for_who_asks_for_that(server: Running) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    events = server.chat(max_tokens=3, stream=True, stream_options=options).events
    assert [json.loads(event)["usage"]["completion_tokens"] for event in events[:-1]] == [0, 1, 2, 3, 3]


def test_a_chat_says_that_it_is_simulated_and_always_the_same(server: Running) -> None:
    one, other = server.chat(), server.chat()
    text = one.json["choices"][0]["message"]["content"]
    assert text.startswith("This is a simulated answer from first: no model is loaded. This is")
    assert text == other.json["choices"][0]["message"]["content"]
    assert one.json["choices"][0]["finish_reason"] == "stop"
    assert one.json["usage"]["completion_tokens"] == 32


def test_a_stream_says_what_the_whole_answer_says(server: Running) -> None:
    parts = [json.loads(event) for event in server.chat(stream=True, max_tokens=40).events[:-1]]
    text = "".join(part["choices"][0]["delta"]["content"] for part in parts)
    assert text == server.chat(max_tokens=40).json["choices"][0]["message"]["content"]


def test_several_answers_have_an_index_each(server: Running) -> None:
    whole = server.chat(n=3, max_tokens=2).json
    assert [choice["index"] for choice in whole["choices"]] == [0, 1, 2]
    assert whole["usage"]["completion_tokens"] == 6
    events = [json.loads(event) for event in server.chat(n=2, max_tokens=2, stream=True).events[:-1]]
    assert sorted(event["choices"][0]["index"] for event in events) == [0, 0, 0, 1, 1, 1]
    assert [event["choices"][0]["delta"].get("role") for event in events[:2]] == ["assistant", "assistant"]


def test_an_answer_ends_before_a_stop(server: Running) -> None:
    choice = server.chat(max_tokens=20, stop=["answer"]).json["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("This is a simulated", "stop")
    assert choice["stop_reason"] == "answer"


@pytest.mark.parametrize("model", [{}, {"model": None}, {"model": ""}, {"model": "first"}])
def test_no_model_is_the_served_model(server: Running, model: dict[str, object]) -> None:
    assert server.chat(max_tokens=1, **model).json["model"] == "first"


def test_an_adapter_answers_by_its_name(server: Running) -> None:
    assert server.chat(max_tokens=1, model="sql").json["model"] == "sql"


def test_a_completion_has_the_fields_of_the_real_one_in_their_order(server: Running) -> None:
    body = {"prompt": ["hi", "you there"], "max_tokens": 1, "echo": True}
    assert steady(take_apart(server.raw("POST", "/v1/completions", body, IDENTIFIED)).body) == (
        b'{"id":"cmpl-abc","object":"text_completion","created":0,"model":"first","choices":['
        b'{"index":0,"text":"hiThis","logprobs":null,"finish_reason":"length","stop_reason":null,"token_ids":null,'
        b'"prompt_logprobs":null,"prompt_token_ids":null,"routed_experts":null},'
        b'{"index":1,"text":"you thereThis","logprobs":null,"finish_reason":"length","stop_reason":null,'
        b'"token_ids":null,"prompt_logprobs":null,"prompt_token_ids":null,"routed_experts":null}],"service_tier":null,'
        b'"system_fingerprint":"vllm-0.32.0-simulated","usage":{"prompt_tokens":3,"total_tokens":5,'
        b'"completion_tokens":2,"prompt_tokens_details":null,"completion_tokens_details":null},'
        b'"kv_transfer_params":null,"ec_transfer_params":null,"metrics":null}'
    )


def test_a_stream_of_a_completion_has_no_role(server: Running) -> None:
    body = {"prompt": "hi", "max_tokens": 1, "stream": True, "stream_options": {"include_usage": True}}
    answer = server.ask("POST", "/v1/completions", body, IDENTIFIED)
    head = b'{"id":"cmpl-abc","object":"text_completion","created":0,"model":"first","choices":['
    assert [steady(event) for event in answer.events] == [
        head + b'{"index":0,"text":"This","logprobs":null,"finish_reason":"length","stop_reason":null,'
        b'"prompt_token_ids":null,"token_ids":null}]}',
        head + b'],"usage":{"prompt_tokens":1,"total_tokens":2,"completion_tokens":1},'
        b'"system_fingerprint":"vllm-0.32.0-simulated"}',
        b"[DONE]",
    ]


def test_a_completion_has_sixteen_tokens_unless_told_otherwise(server: Running) -> None:
    assert server.ask("POST", "/v1/completions", {"prompt": [1, 2, 3]}).json["usage"] == {
        "prompt_tokens": 3,
        "total_tokens": 19,
        "completion_tokens": 16,
        "prompt_tokens_details": None,
        "completion_tokens_details": None,
    }


def test_invocations_are_a_chat_or_a_completion_for_any_model(server: Running) -> None:
    chat = server.ask("POST", "/invocations", {"model": "nope", "max_tokens": 1, **ASK})
    assert (chat.json["object"], chat.json["model"]) == ("chat.completion", "first")
    assert server.ask("POST", "/invocations", {"prompt": "hi"}).json["object"] == "text_completion"


def test_a_message_has_the_fields_of_the_real_one_in_their_order(server: Running) -> None:
    body = {"model": "first", "max_tokens": 2, **ASK}
    assert take_apart(server.raw("POST", "/v1/messages", body, IDENTIFIED)).body == (
        b'{"id":"chatcmpl-abc","type":"message","role":"assistant","content":[{"type":"text","text":"This is"}],'
        b'"model":"first","stop_reason":"max_tokens","usage":{"input_tokens":11,"output_tokens":2}}'
    )


def test_a_stream_of_a_message_names_its_events_and_has_no_done(server: Running) -> None:
    body = {"model": "first", "max_tokens": 1, "stream": True, **ASK}
    answer = take_apart(server.raw("POST", "/v1/messages", body, IDENTIFIED))
    assert dechunk(answer.body) == (
        b'event: message_start\ndata: {"type":"message_start","message":{"id":"chatcmpl-abc","type":"message",'
        b'"role":"assistant","content":[],"model":"first","stop_reason":null,"stop_sequence":null,"usage":'
        b'{"input_tokens":11,"output_tokens":0}}}\n\n'
        b'event: content_block_start\ndata: {"type":"content_block_start","content_block":{"type":"text","text":""},'
        b'"index":0}\n\n'
        b'event: content_block_delta\ndata: {"type":"content_block_delta","delta":{"type":"text_delta","text":"This"},'
        b'"index":0}\n\n'
        b'event: content_block_stop\ndata: {"type":"content_block_stop","index":0}\n\n'
        b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"max_tokens",'
        b'"stop_sequence":null},"usage":{"input_tokens":11,"output_tokens":1}}\n\n'
        b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
    )


def test_the_tokens_of_a_message_can_be_counted(server: Running) -> None:
    answer = server.ask("POST", "/v1/messages/count_tokens", {"model": "first", **ASK})
    assert answer.body == b'{"input_tokens":11,"context_management":{"original_input_tokens":11}}'


def test_a_response_tells_why_it_is_not_complete(server: Running) -> None:
    answer = server.ask("POST", "/v1/responses", {"input": "hi", "max_output_tokens": 2}).json
    assert (answer["object"], answer["status"]) == ("response", "incomplete")
    assert answer["incomplete_details"] == {"reason": "max_output_tokens"}
    assert answer["output"][0]["content"][0]["text"] == "This is"
    assert server.ask("POST", "/v1/responses", {"input": "hi"}).json["status"] == "completed"


def test_the_events_of_a_response_are_numbered(server: Running) -> None:
    answer = server.ask("POST", "/v1/responses", {"input": "hi", "max_output_tokens": 2, "stream": True})
    events = [json.loads(event) for event in answer.events]
    assert [event["sequence_number"] for event in events] == list(range(10))
    assert [event["type"].removeprefix("response.") for event in events] == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert events[-1]["response"]["output"][0]["content"][0]["text"] == "This is"


def test_responses_are_kept_only_when_the_environment_says_so(server: Running, simulate: Simulate) -> None:
    identity = server.ask("POST", "/v1/responses", {"input": "hi"}).json["id"]
    assert server.ask("GET", f"/v1/responses/{identity}").json["error"] == {
        "message": f"Response with id '{identity}' not found.",
        "type": "invalid_request_error",
        "param": "response_id",
        "code": 404,
    }
    one = simulate(environ={"VLLM_ENABLE_RESPONSES_API_STORE": "1"})
    whole = one.ask("POST", "/v1/responses", {"input": "hi"}).json
    assert one.ask("GET", f"/v1/responses/{whole['id']}").json == whole
    for stream in (False, True):
        going_on = {"input": "hi", "previous_response_id": whole["id"], "stream": stream}
        assert one.ask("POST", "/v1/responses", going_on).status == 200
        refused = one.ask("POST", "/v1/responses", going_on | {"previous_response_id": identity})
        assert (refused.status, refused.json["error"]["param"]) == (404, "response_id")
    refused = one.ask("POST", f"/v1/responses/{whole['id']}/cancel")
    assert (refused.status, refused.json["error"]["message"]) == (400, "Cannot cancel a synchronous response.")


def test_a_response_in_the_background_can_be_cancelled(simulate: Simulate) -> None:
    one = simulate("--sim-token-seconds", "30", environ={"VLLM_ENABLE_RESPONSES_API_STORE": "1"})
    queued = one.ask("POST", "/v1/responses", {"input": "hi", "background": True}).json
    assert queued["status"] == "queued"
    assert one.ask("POST", f"/v1/responses/{queued['id']}/cancel").json["status"] == "cancelled"
    assert one.ask("GET", f"/v1/responses/{queued['id']}").json["status"] == "cancelled"
    assert one.metric('vllm:request_success_total{engine="0",finished_reason="abort"') == 1
