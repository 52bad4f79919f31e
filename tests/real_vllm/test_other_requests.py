"""What neither client asks for: vLLM's own paths, raw bodies, large ones, and clients that leave."""

from __future__ import annotations

import gzip
import json
import re
import time
from collections.abc import Callable
from typing import Any

import openai
import pytest
import requests

from tests.real_vllm.agree import (
    OURS,
    Pair,
    Question,
    assert_agree,
    assert_refused_alike,
    assert_refused_by_us,
)
from tests.real_vllm.conftest import Report
from tests.real_vllm.fleet import MODEL_A, MODEL_POOL, ROOM_A, wait_for
from tests.real_vllm.questions import HELLO, LONG, chat, message, post, raw

pytestmark = pytest.mark.timeout(900)

MIB = 1 << 20

ANSWERED = {
    "tokenize a prompt": post(MODEL_A, "/tokenize", prompt="Hello"),
    "tokenize a chat": post(MODEL_A, "/tokenize", messages=HELLO, add_generation_prompt=False),
    "detokenize": post(MODEL_A, "/detokenize", tokens=[50, 60]),
    "invocations": post(MODEL_A, "/invocations", messages=HELLO, max_tokens=4, temperature=0),
    "a batch": post(MODEL_A, "/v1/chat/completions/batch", messages=[HELLO, HELLO], max_tokens=4, temperature=0),
    "scoring": post(MODEL_A, "/generative_scoring", query="a", items=["b", "c"], label_token_ids=[50, 60]),
    "the version": lambda side: side.send("GET", f"/version?model={MODEL_A}"),
    "another charset": raw(
        "/tokenize", b'{"model": "tiny-a", "prompt": "Hi"}', content_type="application/json; charset=utf-8"
    ),
    "a byte order mark": raw("/tokenize", b'\xef\xbb\xbf{"model": "tiny-a", "prompt": "Hi"}'),
    "a model named twice alike": raw("/tokenize", b'{"model": "tiny-a", "model": "tiny-a", "prompt": "Hi"}'),
    "escapes in its names": raw("/tokenize", b'{"mode\\u006c": "t\\u0069ny-a", "prompt": "Hi"}'),
}
REFUSED = {
    "tokenize a number": post(MODEL_A, "/tokenize", prompt=5),
    "detokenize less than nothing": post(MODEL_A, "/detokenize", tokens=[-1]),
    "empty invocations": post(MODEL_A, "/invocations"),
    "an empty batch": post(MODEL_A, "/v1/chat/completions/batch"),
    "empty scoring": post(MODEL_A, "/generative_scoring"),
    "a score of a model that cannot": post(MODEL_A, "/score", text_1="a", text_2="b"),
    "a rank of a model that cannot": post(MODEL_A, "/v2/rerank", query="a", documents=["b"]),
    "pooling of a model that cannot": post(MODEL_A, "/pooling", input="a"),
    "classes of a model that cannot": post(MODEL_A, "/classify", input="a"),
    "a body that is not called JSON": raw("/tokenize", b'{"model": "tiny-a"}', content_type="text/plain"),
    "a body that is called nothing": raw("/tokenize", b'{"model": "tiny-a"}', content_type=None),
    "a number that is none": raw("/v1/completions", b'{"model": "tiny-a", "prompt": "x", "temperature": NaN}'),
    "bytes that are not UTF-8": raw("/v1/completions", b'{"model": "tiny-a", "prompt": "\xff"}'),
    "half a surrogate": raw("/v1/completions", b'{"model": "tiny-a", "prompt": "\\ud800"}'),
    "a fault deep inside": raw("/v1/chat/completions", b'{"model": "tiny-a", "messages": [{"role":}]}'),
}
POOLED = {
    "a score": post(MODEL_POOL, "/score", text_1="a", text_2=["b", "c"]),
    "a score by its other name": post(MODEL_POOL, "/v1/score", text_1="a", text_2="b"),
    "a rank": post(MODEL_POOL, "/rerank", query="a", documents=["b", "c"]),
    "the first of a rank": post(MODEL_POOL, "/v1/rerank", query="a", documents=["b", "c"], top_n=1),
    "a rank as others want it": post(MODEL_POOL, "/v2/rerank", query="a", documents=["b", "c"]),
    "pooling": post(MODEL_POOL, "/pooling", input="a"),
    "embeddings as others want them": post(MODEL_POOL, "/v2/embed", texts=["a"], embedding_types=["float"]),
    "invocations": post(MODEL_POOL, "/invocations", input="a"),
    "tokenize": post(MODEL_POOL, "/tokenize", prompt="Hello"),
}
NOT_POOLED = {
    "half a score": post(MODEL_POOL, "/score", text_1="a"),
    "too long a score": post(MODEL_POOL, "/score", text_1=LONG, text_2="b"),
    "half a rank": post(MODEL_POOL, "/v2/rerank", query="a"),
    "a task that is not there": post(MODEL_POOL, "/pooling", input="a", task="nope"),
    "embeddings of nothing": post(MODEL_POOL, "/v2/embed"),
    "classes of a model that has none": post(MODEL_POOL, "/classify", input="a"),
}


@pytest.mark.parametrize("what", ANSWERED)
def test_an_answer_is_the_engines(pair: Pair, what: str) -> None:
    assert_agree(pair, ANSWERED[what])


@pytest.mark.parametrize("what", REFUSED)
def test_a_refusal_is_the_engines(pair: Pair, what: str) -> None:
    assert_refused_alike(pair, REFUSED[what])


@pytest.mark.parametrize("what", POOLED)
def test_a_pooling_answer_is_the_engines(pooling_pair: Pair, what: str) -> None:
    assert_agree(pooling_pair, POOLED[what])


@pytest.mark.parametrize("what", NOT_POOLED)
def test_a_pooling_refusal_is_the_engines(pooling_pair: Pair, what: str) -> None:
    assert_refused_alike(pooling_pair, NOT_POOLED[what])


NO_OBJECT = {
    "half a document": b'{"model": "tiny-a",',
    "no JSON": b"Hello",
    "a list": b'[{"model": "tiny-a"}]',
    "a string": b'"tiny-a"',
    "nothing": b"",
    "more than a document": b'{"model": "tiny-a", "messages": []} x',
    "a form": b"model=tiny-a",
    "a compressed document": gzip.compress(b'{"model": "tiny-a"}'),
    "a bottomless document": b'{"model": "tiny-a", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
}


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/responses"])
@pytest.mark.parametrize("what", NO_OBJECT)
def test_a_body_that_is_no_object_has_the_engines_status(pair: Pair, what: str, path: str) -> None:
    assert_refused_by_us(pair, raw(path, NO_OBJECT[what]), "bad_body")


WRONG_METHOD = [
    ("GET", "/v1/chat/completions"),
    ("PUT", "/v1/completions"),
    ("PATCH", "/v1/responses"),
    ("GET", "/v1/messages"),
    ("DELETE", "/v1/models"),
    ("POST", "/health"),
]
NO_PATH = [("GET", "/v1/nothing"), ("POST", "/v1/chat/completionsx"), ("POST", "/V1/completions"), ("GET", "/v1")]


@pytest.mark.parametrize(("method", "path"), WRONG_METHOD)
def test_a_wrong_method_has_the_engines_status(pair: Pair, method: str, path: str) -> None:
    assert_refused_by_us(pair, lambda side: side.send(method, path), "method_not_allowed")


@pytest.mark.parametrize(("method", "path"), NO_PATH)
def test_an_unknown_path_has_the_engines_status(pair: Pair, method: str, path: str) -> None:
    assert_refused_by_us(pair, lambda side: side.send(method, path), "unknown_path")


BALLAST = {"chat_template_kwargs": {"ballast": "x" * (3 * MIB)}}


@pytest.mark.parametrize(
    "question",
    [chat(extra_body=BALLAST), chat(extra_body=BALLAST, stream=True), message(extra_body=BALLAST)],
    ids=["a chat", "a streamed chat", "a message"],
)
def test_a_request_of_three_megabytes_is_answered(pair: Pair, question: Question) -> None:
    assert_agree(pair, question)


def test_a_request_of_three_megabytes_is_refused_by_the_engine(pair: Pair) -> None:
    assert_refused_alike(pair, chat(messages=[{"role": "user", "content": "x " * (3 * MIB // 2)}]))


def test_a_large_request_without_a_length_is_answered(pair: Pair) -> None:
    body = json.dumps({"model": MODEL_A, "prompt": "Hello", "ballast": "x" * (2 * MIB)}).encode()
    pieces = [body[at : at + 100_000] for at in range(0, len(body), 100_000)]
    headers = {"content-type": "application/json"}
    assert_agree(pair, lambda side: side.send("POST", "/tokenize", data=iter(pieces), headers=headers))


def metric(pair: Pair, name: str) -> float:
    """One of an engine's own figures."""
    text = requests.get(f"{pair.direct.url}/metrics", timeout=10).text
    return sum(map(float, re.findall(rf"^{name}\{{.*\}} (\S+)$", text, re.MULTILINE)))


#: An answer that takes half a minute and does not end by itself.
MANY = ROOM_A - 100
ENDLESS = {"max_tokens": MANY, "extra_body": {"ignore_eos": True}}


def leave_a_stream(pair: Pair) -> None:
    """Close the connection after the first event."""
    stream: Any = chat(**ENDLESS, stream=True)(pair.through)
    assert next(iter(stream))
    stream.close()


def leave_a_message(pair: Pair) -> None:
    """The same in Anthropic's client."""
    stream: Any = message(**ENDLESS, stream=True)(pair.through)
    assert next(iter(stream))
    stream.close()


def leave_before_an_answer(pair: Pair) -> None:
    """Wait for less time than an answer takes."""
    hasty = pair.through.openai.with_options(timeout=0.2)
    asked: Any = {"model": MODEL_A, "messages": HELLO, **ENDLESS}
    with pytest.raises(openai.APITimeoutError):
        hasty.chat.completions.create(**asked)


@pytest.mark.parametrize("leave", [leave_a_stream, leave_a_message, leave_before_an_answer])
def test_a_client_that_leaves_ends_the_work_in_the_engine(
    pair: Pair, report: Report, leave: Callable[[Pair], None]
) -> None:
    made = metric(pair, "vllm:generation_tokens_total")
    leave(pair)
    begin = time.monotonic()
    wait_for(lambda: metric(pair, "vllm:num_requests_running") == 0, "the engine to have nothing to do", 20)
    report(f"{leave.__name__}: the engine ran nothing {time.monotonic() - begin:.2f} s later")
    assert metric(pair, "vllm:generation_tokens_total") - made < MANY


def test_a_websocket_is_refused_as_the_engine_refuses_it(pair: Pair) -> None:
    headers = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    headers["Sec-WebSocket-Key"] = "dGhlIHNhbXBsZSBub25jZQ=="
    sides = (pair.direct, pair.through)
    answers = [
        requests.get(
            f"{side.url}/v1/realtime?model={MODEL_A}",
            headers={**headers, "Authorization": f"Bearer {side.key}"},
            timeout=10,
        )
        for side in sides
    ]
    direct, through = answers
    assert (through.status_code, through.content) == (direct.status_code, direct.content) == (403, b"")
    assert OURS not in through.headers
