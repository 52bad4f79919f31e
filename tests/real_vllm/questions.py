"""What the tests ask: requests that differ from an ordinary one in one thing each."""

from __future__ import annotations

from typing import Any

from tests.real_vllm.agree import Question
from tests.real_vllm.fleet import MODEL_A, MODEL_POOL

HELLO: list[Any] = [{"role": "user", "content": "Hello"}]
#: Longer than any engine here can take.
LONG = "x " * 20_000
_TOOL_SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 4}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOL = {"name": "weather", "description": "Tells it.", "parameters": _TOOL_SCHEMA}
CHAT_TOOL = {"type": "function", "function": TOOL}
ANTHROPIC_TOOL = {"name": "weather", "description": "Tells it.", "input_schema": _TOOL_SCHEMA}
ANSWER_SCHEMA = {
    "name": "answer",
    "strict": True,
    "schema": {
        "type": "object",
        "properties": {"yes": {"type": "boolean"}},
        "required": ["yes"],
        "additionalProperties": False,
    },
}


def chat(**changes: Any) -> Question:
    """A chat completion."""
    asked = {"model": MODEL_A, "messages": HELLO, "max_tokens": 12, "temperature": 0, "seed": 1, **changes}
    return lambda side: side.openai.chat.completions.create(**asked)


def completion(**changes: Any) -> Question:
    """A completion."""
    asked = {"model": MODEL_A, "prompt": "Once upon", "max_tokens": 12, "temperature": 0, "seed": 1, **changes}
    return lambda side: side.openai.completions.create(**asked)


def response(**changes: Any) -> Question:
    """A response, as OpenAI's newer interface calls an answer."""
    asked = {"model": MODEL_A, "input": "Hello", "max_output_tokens": 12, "temperature": 0, **changes}
    return lambda side: side.openai.responses.create(**asked)


def embedding(**changes: Any) -> Question:
    """An embedding."""
    asked = {"model": MODEL_POOL, "input": "Hello", **changes}
    return lambda side: side.openai.embeddings.create(**asked)


def transcription(model: str) -> Question:
    """A multipart form, with a file that is larger than one read."""
    sound = b"RIFF\x00\x00\x00\x00WAVEfmt " + bytes(1 << 20)
    return lambda side: side.openai.audio.transcriptions.create(model=model, file=("sound.wav", sound))


def message(**changes: Any) -> Question:
    """A message, as Anthropic calls an answer. The client knows no temperature; the engine does."""
    body = {"temperature": 0, **changes.pop("extra_body", {})}
    asked = {"model": MODEL_A, "messages": HELLO, "max_tokens": 12, **changes}
    return lambda side: side.anthropic.messages.create(**asked, extra_body=body)


def count(**changes: Any) -> Question:
    """How many tokens a message would have."""
    asked = {"model": MODEL_A, "messages": HELLO, **changes}
    return lambda side: side.anthropic.messages.count_tokens(**asked)


def post(model: str, path: str, **body: Any) -> Question:
    """POST of JSON without any client of its own."""
    return lambda side: side.post(path, {"model": model, **body})


def raw(path: str, data: bytes, **headers: str | None) -> Question:
    """POST of these very bytes; the names of `headers` have underscores for hyphens."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda side: side.send("POST", path, data=data, headers={"content-type": "application/json", **named})
