"""The bytes of the benchmark, made once: what clients ask, what the mock engine answers.

Requests carry the header fields that the OpenAI client for Python sends, and name the model after the messages, as it
does. The target's query tells the mock engine what to answer, so that it need not look into bodies.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

MODEL = "mock"
KEY = "sk-bench-0123456789abcdef0123456789abcdef"
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
)
_COMPLETION_ID = "chatcmpl-0123456789abcdef0123456789abcdef"
_QUERY = re.compile(rb"chunks=([0-9]{1,6})&pace=([0-9]{1,4})")


@dataclass(frozen=True)
class StreamOrder:
    """A stream that is asked for: so many chunks, one each `pace` milliseconds; 0 is as fast as they are taken."""

    chunks: int
    pace: int

    @property
    def target(self) -> str:
        return f"{PATH}?chunks={self.chunks}&pace={self.pace}"


def read_order(target: bytes) -> StreamOrder | None:
    """The stream that a request's target asks for; None where it asks for a plain answer."""
    match = _QUERY.search(target)
    return StreamOrder(int(match[1]), int(match[2])) if match else None


def make_request(target: str = PATH, *, size: int = 0, stream: bool = False) -> bytes:
    """A chat request; `size` is the length of its message in bytes."""
    text = "Why is the sky blue? Answer in one word." if not size else ("lorem ipsum dolor sit amet, " * size)[:size]
    asked: dict[str, object] = {"messages": [{"role": "user", "content": text}], "model": MODEL, "max_tokens": 16}
    if stream:
        asked |= {"stream": True, "stream_options": {"include_usage": True}}
    body = json.dumps(asked, separators=(",", ":")).encode()
    head = (f"POST {target} HTTP/1.1", *_CLIENT_FIELDS, f"content-length: {len(body)}")
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


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
STREAM_HEAD = _head("content-type: text/event-stream; charset=utf-8", "transfer-encoding: chunked")
CHUNK = _delta()
#: The end of every stream: two more events, and the chunk that ends the body.
STREAM_END = _usage() + _event("[DONE]") + b"0\r\n\r\n"
END_EVENTS = STREAM_END.count(b"\n\n")
