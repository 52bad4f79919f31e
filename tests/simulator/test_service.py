"""The routes beside the answers: models, tokens, adapters, sleep, metrics, pooling."""

from __future__ import annotations

import base64
import re
import struct

from .running import Running, Simulate, until

DEV = {"VLLM_SERVER_DEV_MODE": "1"}


def test_every_served_name_is_listed_then_the_adapters(server: Running) -> None:
    listed = server.ask("GET", "/v1/models").json
    assert listed["object"] == "list"
    assert [(card["id"], card["root"], card["parent"], card["max_model_len"]) for card in listed["data"]] == [
        ("first", "org/tiny", None, 512),
        ("second", "org/tiny", None, 512),
        ("sql", "org/sql", "first", None),
    ]
    assert list(listed["data"][0]) == [
        *("id", "object", "created", "owned_by", "root", "parent", "max_model_len", "permission")
    ]


def test_what_was_tokenized_can_be_put_together_again(server: Running) -> None:
    text = "Wörter, and 12 signs?! \n 🙂"
    tokens = server.ask("POST", "/tokenize", {"prompt": text, "return_token_strs": True}).json
    assert (tokens["count"], tokens["max_model_len"]) == (len(tokens["tokens"]), 512)
    assert "".join(tokens["token_strs"]) == text
    assert server.ask("POST", "/detokenize", {"tokens": tokens["tokens"]}).json == {"prompt": text}


def test_a_conversation_has_as_many_tokens_as_its_usage_says(server: Running) -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": "some words"}, {"type": "image_url"}]}]
    count = server.ask("POST", "/tokenize", {"messages": messages}).json["count"]
    assert server.chat(messages=messages, max_tokens=1).json["usage"]["prompt_tokens"] == count


def test_unknown_models_have_no_tokens(server: Running) -> None:
    assert server.ask("POST", "/tokenize", {"model": "q", "prompt": "hi"}).status == 404
    assert server.ask("POST", "/detokenize", {"tokens": "abc"}).status == 400


def test_adapters_come_and_go_when_the_environment_allows_it(server: Running, simulate: Simulate) -> None:
    adapter = {"lora_name": "sql2", "lora_path": "org/sql2"}
    assert server.ask("POST", "/v1/load_lora_adapter", adapter).status == 404
    one = simulate("--enable-lora", environ={"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True"})
    loaded = one.ask("POST", "/v1/load_lora_adapter", adapter)
    assert (loaded.status, loaded.body) == (200, b"Success: LoRA adapter 'sql2' added successfully.")
    assert one.chat(model="sql2", max_tokens=1).json["model"] == "sql2"
    again = one.ask("POST", "/v1/load_lora_adapter", adapter)
    assert again.body == (
        b'{"error":{"message":"The lora adapter \'sql2\' has already been loaded. If you want to load the adapter in '
        b'place, set \'load_inplace\' to True.","type":"InvalidUserInput","param":null,"code":400}}'
    )
    missing = one.ask("POST", "/v1/load_lora_adapter", {"lora_name": "x", "lora_path": "/none"})
    assert missing.json["error"]["message"] == "Loading lora x failed: No adapter found for /none"
    unloaded = one.ask("POST", "/v1/unload_lora_adapter", {"lora_name": "sql2"})
    assert unloaded.body == b"Success: LoRA adapter 'sql2' removed successfully."
    gone = one.ask("POST", "/v1/unload_lora_adapter", {"lora_name": "sql2"})
    assert (gone.status, gone.json["error"]["message"]) == (404, "The lora adapter 'sql2' cannot be found.")
    assert one.chat(model="sql2").status == 404


def test_requests_wait_while_the_engine_sleeps(simulate: Simulate) -> None:
    one = simulate("--enable-sleep-mode", environ=DEV)
    assert one.ask("GET", "/is_sleeping").body == b'{"is_sleeping":false}'
    assert one.ask("POST", "/sleep?level=1").body == b'{"status":"sleeping","level":1}'
    assert one.ask("GET", "/health").status == 200
    assert one.metric('vllm:engine_sleep_state{engine="0",model_name="org/tiny",sleep_state="awake"}') == 0
    connection = one.send("POST", "/v1/completions", {"prompt": "hi", "max_tokens": 1})
    until(lambda: one.metric("vllm:num_requests_waiting{") == 1)
    assert one.ask("POST", "/wake_up?tags=weights").body == b'{"status":"sleeping","tags":["weights"]}'
    assert one.ask("GET", "/is_sleeping").body == b'{"is_sleeping":true}'
    assert one.ask("POST", "/wake_up").body == b'{"status":"awake","tags":null}'
    with connection:
        assert connection.recv(15) == b"HTTP/1.1 200 OK"


def test_weights_that_were_thrown_away_have_to_be_read_again(simulate: Simulate) -> None:
    one = simulate("--enable-sleep-mode", environ=DEV)
    reload = {"method": "reload_weights"}
    before = one.chat(max_tokens=4).json["choices"][0]["message"]["content"]
    one.ask("POST", "/sleep?level=2")
    assert one.ask("POST", "/collective_rpc", reload).status == 500  # there is no memory that could take them
    one.ask("POST", "/wake_up")
    assert one.chat(max_tokens=4).json["choices"][0]["message"]["content"] == "!!!!"
    assert one.ask("POST", "/collective_rpc", reload).json == {"results": [None]}
    assert one.ask("POST", "/collective_rpc", {"method": "x"}).status == 500
    assert one.ask("POST", "/reset_prefix_cache").json == {"success": True}
    assert one.chat(max_tokens=4).json["choices"][0]["message"]["content"] == before


def test_what_runs_is_aborted_by_a_pause(simulate: Simulate) -> None:
    one = simulate("--sim-token-seconds", "30", environ=DEV)
    connection = one.send("POST", "/v1/completions", {"prompt": "hi"})
    until(lambda: one.metric("vllm:num_requests_running{") == 1)
    assert one.ask("POST", "/pause").body == b'{"status":"paused"}'
    with connection:
        assert connection.recv(12) == b"HTTP/1.1 500"
    assert one.ask("GET", "/is_paused").body == b'{"is_paused":true}'
    assert one.ask("POST", "/resume").body == b'{"status":"resumed"}'


def test_the_level_of_sleep_is_a_number(simulate: Simulate) -> None:
    one = simulate(environ=DEV)
    assert one.ask("POST", "/sleep?level=x").json["error"]["param"] == "query.level"


def test_metrics_follow_what_happened(simulate: Simulate) -> None:
    one = simulate("--served-model-name", "m", "--sim-token-seconds", "0.01")
    one.chat(max_tokens=5)
    one.chat(max_tokens=3, stream=True)
    one.chat(model="nope")
    page = one.ask("GET", "/metrics")
    assert page.headers["content-type"] == "text/plain; version=1.0.0; charset=utf-8"
    values = dict(re.findall(r"^([^#].*) (\S+)$", page.body.decode(), re.MULTILINE))
    labels = 'engine="0",model_name="m"'
    assert values[f"vllm:prompt_tokens_total{{{labels}}}"] == "20.0"
    assert values[f"vllm:generation_tokens_total{{{labels}}}"] == "8.0"
    assert values['vllm:request_success_total{engine="0",finished_reason="length",model_name="m"}'] == "2.0"
    assert values[f"vllm:time_to_first_token_seconds_count{{{labels}}}"] == "2.0"
    assert values[f"vllm:inter_token_latency_seconds_count{{{labels}}}"] == "6.0"
    assert float(values[f"vllm:inter_token_latency_seconds_sum{{{labels}}}"]) >= 0.05
    assert values[f'vllm:e2e_request_latency_seconds_bucket{{{labels},le="+Inf"}}'] == "2.0"
    assert values[f"vllm:iteration_tokens_total_count{{{labels}}}"] == "8.0"
    assert values[f"vllm:num_requests_running{{{labels}}}"] == "0.0"
    assert values['http_requests_total{handler="/v1/chat/completions",method="POST",status="4xx"}'] == "1.0"


def test_requests_that_run_and_wait_are_counted(simulate: Simulate) -> None:
    one = simulate("--max-num-seqs", "2", "--sim-token-seconds", "30", "--sim-kv-tokens", "100")
    connections = [one.send("POST", "/v1/completions", {"prompt": "hi"}) for _ in range(5)]
    until(lambda: one.metric("vllm:num_requests_waiting{") == 3)
    assert one.metric("vllm:num_requests_running{") == 2
    assert 0 < one.metric("vllm:kv_cache_usage_perc{") < 0.2
    assert one.ask("GET", "/load").json == {"server_load": 5}
    for connection in connections:
        connection.close()
    until(lambda: one.ask("GET", "/load").json == {"server_load": 0})


def test_a_client_that_goes_aborts_its_request(simulate: Simulate) -> None:
    one = simulate("--sim-token-seconds", "0.01", "--sim-tokens", "100000")
    body = {"messages": [{"role": "user", "content": "hi"}], "stream": True}
    with one.send("POST", "/v1/chat/completions", body, {"X-Request-Id": "gone"}) as connection:
        assert connection.recv(1)
    aborted = 'vllm:request_success_total{engine="0",finished_reason="abort"'
    until(lambda: one.metric(aborted) == 1)
    assert "Aborted request chatcmpl-gone." in one.out
    one.send("POST", "/v1/chat/completions", body | {"stream": False}).close()
    until(lambda: one.metric(aborted) == 2)
    assert one.metric("vllm:num_requests_running{") == 0


def test_a_stream_that_nobody_reads_waits(simulate: Simulate) -> None:
    one = simulate("--sim-token-seconds", "0", "--max-model-len", "1M")
    with one.stream(max_tokens=200_000) as slow:
        until(lambda: one.metric("vllm:generation_tokens_total{") == 200_000)
        assert one.chat(max_tokens=1).status == 200
        received = b""
        while not received.endswith(b"0\r\n\r\n"):
            received = (received + slow.recv(1 << 20))[-100:]
        assert b"data: [DONE]" in received


def test_a_pooling_server_embeds_and_does_not_chat(simulate: Simulate) -> None:
    one = simulate("--runner", "pooling", "--sim-embedding-size", "64")
    assert one.chat().status == 404
    answer = one.ask("POST", "/v1/embeddings", {"input": ["a cat", "a cat", "trucks"]}).json
    first, second, third = (item["embedding"] for item in answer["data"])
    assert first == second != third
    assert len(first) == 64
    assert abs(sum(value * value for value in first) - 1) < 1e-9
    assert answer["usage"]["prompt_tokens"] == 5
    coded = one.ask("POST", "/v1/embeddings", {"input": "a cat", "encoding_format": "base64"}).json
    decoded = struct.unpack("<64f", base64.b64decode(coded["data"][0]["embedding"]))
    assert max(abs(left - right) for left, right in zip(decoded, first, strict=True)) < 1e-6
    assert one.ask("POST", "/v1/embeddings", {"input": "a", "dimensions": 65}).status == 400


def test_a_pooling_server_scores_and_ranks(simulate: Simulate) -> None:
    one = simulate("--runner", "pooling")
    scores = one.ask("POST", "/score", {"text_1": "the black cat", "text_2": ["a black cat", "two trucks"]}).json
    near, far = (item["score"] for item in scores["data"])
    assert near > far
    documents = {"query": "black cat", "documents": ["trucks", "a black cat", "cat"], "top_n": 2}
    ranked = one.ask("POST", "/v1/rerank", documents).json
    assert [result["index"] for result in ranked["results"]] == [1, 2]
