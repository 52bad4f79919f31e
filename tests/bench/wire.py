"""The bytes of the benchmark, made once: what clients ask, what the mock engine answers.

Requests carry the header fields that the OpenAI client for Python sends, and name the model after the messages, as it
does. The message of a small body tells the mock engine which stream is wanted: some proxies drop the target's query,
and some write the body anew.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

MODEL = "mock"
KEY = "sk-bench-0123456789abcdef0123456789abcdef"
ORIGIN = "https://chat.example.org"
PATH = "/v1/chat/completions"

_CLIENT_FIELDS = (
    "host: 127.0.0.1",
    "accept-encoding: gzip, deflate",
    "connection: keep-alive",
    "accept: application/json",
    "content-type: application/json",
    "user-agent: OpenAI/Python 1.99.9",
    "x-stainless-lang: python",
    "x-stainless-package-version: 1.99.9",
    "x-stainless-os: Linux",
    "x-stainless-arch: x64",
    "x-stainless-runtime: CPython",
    "x-stainless-runtime-version: 3.11.7",
    f"authorization: Bearer {KEY}",
    "x-stainless-async: false",
    "x-stainless-retry-count: 0",
    "x-stainless-read-timeout: 600",
    f"origin: {ORIGIN}",  # a browser's, so that CORS has something to do
)
_COMPLETION_ID = "chatcmpl-0123456789abcdef0123456789abcdef"
_ORDER = re.compile(rb"chunks=([0-9]{1,6})&pace=([0-9]{1,4})")


@dataclass(frozen=True)
class StreamOrder:
    """A stream that is asked for: so many chunks, one each `pace` milliseconds; 0 is as fast as they are taken."""

    chunks: int
    pace: int

    @property
    def text(self) -> str:
        """As what it is asked for."""
        return f"Please, chunks={self.chunks}&pace={self.pace}"


def model_names(count: int) -> tuple[str, ...]:
    """The names of so many models; the first is the one that is asked for where there is only one."""
    return tuple(MODEL if number == 0 else f"{MODEL}-{number}" for number in range(count))


def read_order(request: bytes) -> StreamOrder | None:
    """The stream that a request asks for; None where it asks for a plain answer."""
    match = _ORDER.search(request)
    return StreamOrder(int(match[1]), int(match[2])) if match else None


def make_request(
    *, order: StreamOrder | None = None, size: int = 0, model: str = MODEL, by_path: bool = False
) -> bytes:
    """A chat request; `size` is the length of its message in bytes. Without an order it is for a plain answer.

    `by_path`: the path begins with the model, for proxies that cannot look for it in the body.
    """
    text = "Why is the sky blue? Answer in one word." if order is None else order.text
    if size:
        text = ("lorem ipsum dolor sit amet, " * (size // 28 + 1))[:size]
    asked: dict[str, object] = {"messages": [{"role": "user", "content": text}], "model": model, "max_tokens": 16}
    if order is not None:
        asked |= {"stream": True, "stream_options": {"include_usage": True}}
    body = json.dumps(asked, separators=(",", ":")).encode()
    path = f"/{model}{PATH}" if by_path else PATH
    head = (f"POST {path} HTTP/1.1", *_CLIENT_FIELDS, f"content-length: {len(body)}")
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def _models() -> bytes:
    data = json.dumps({"object": "list", "data": [{"id": MODEL, "object": "model", "owned_by": "vllm"}]}).encode()
    return _head(f"content-length: {len(data)}", "content-type: application/json") + data


def _answer() -> bytes:
    message: dict[str, object] = {
        "role": "assistant",
        "content": "Scattering.",
        "refusal": None,
        "tool_calls": [],
        "reasoning": None,
    }
    body: dict[str, object] = {
        "id": _COMPLETION_ID,
        "object": "chat.completion",
        "created": 1760000000,
        "model": MODEL,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop", "stop_reason": None}],
        "usage": {"prompt_tokens": 18, "total_tokens": 22, "completion_tokens": 4, "prompt_tokens_details": None},
    }
    data = json.dumps(body, separators=(",", ":")).encode()
    return _head(f"content-length: {len(data)}", "content-type: application/json") + data


def _head(*fields: str) -> bytes:
    lines = ("HTTP/1.1 200 OK", "date: Thu, 09 Oct 2025 08:53:20 GMT", "server: uvicorn", *fields)
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def _event(data: str) -> bytes:
    """One server-sent event as one HTTP chunk, as uvicorn sends it."""
    event = f"data: {data}\n\n".encode()
    return b"%x\r\n%b\r\n" % (len(event), event)


def _delta() -> bytes:
    choice = {"index": 0, "delta": {"content": " light"}, "logprobs": None, "finish_reason": None, "token_ids": None}
    body = {
        "id": _COMPLETION_ID,
        "object": "chat.completion.chunk",
        "created": 1760000000,
        "model": MODEL,
        "choices": [choice],
    }
    return _event(json.dumps(body, separators=(",", ":")))


def _usage() -> bytes:
    usage = {"prompt_tokens": 18, "total_tokens": 218, "completion_tokens": 200}
    return _event(json.dumps({"id": _COMPLETION_ID, "model": MODEL, "choices": [], "usage": usage}))


ANSWER = _answer()
#: What every GET is answered with: proxies look for health and for models.
MODELS = _models()
STREAM_HEAD = _head("content-type: text/event-stream; charset=utf-8", "transfer-encoding: chunked")
CHUNK = _delta()
#: The end of every stream: two more events, and the chunk that ends the body.
STREAM_END = _usage() + _event("[DONE]") + b"0\r\n\r\n"
END_EVENTS = STREAM_END.count(b"\n\n")
