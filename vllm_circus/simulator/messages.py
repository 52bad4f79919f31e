"""`/v1/messages` and `/v1/messages/count_tokens`: the Anthropic form of a chat."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from .chat import conversation
from .engine import EngineDead
from .http import Reply, Request, Stream
from .replies import ENGINE_DEAD, dump, integer, invalid, json_reply, read_body, required
from .serving import Generation, State, abandon, finish, new_id, start
from .text import count

_REASONS = {"length": "max_tokens", "stop": "end_turn"}


async def messages(state: State, request: Request) -> Reply | Stream:
    """POST /v1/messages. Model, messages and max_tokens are required, other than in the other routes."""
    body = _body(request, "messages", "max_tokens")
    model = state.known_model(body)
    limit = integer(body, "max_tokens")
    state.check_limit(limit)
    prompt = _prompt(body)
    tokens = count(prompt)
    state.check_prompt(len(prompt), tokens)
    state.refuse_if_draining()
    identity = new_id("chatcmpl-", request.headers.get("x-request-id"))
    generation = start(state, identity, tokens, limit, body.get("stop_sequences"))
    shown: dict[str, Any] = {"id": identity, "type": "message", "role": "assistant"}
    if body.get("stream"):
        return Stream(_stream(shown, model, generation))
    text = (await finish([generation]))[0]
    usage = {"input_tokens": tokens, "output_tokens": generation.sequence.produced}
    content = [{"type": "text", "text": text}]
    shown |= {"content": content, "model": model, "stop_reason": _reason(generation)}
    if generation.stop_reason:
        shown["stop_sequence"] = generation.stop_reason
    return json_reply(shown | {"usage": usage})


async def count_tokens(state: State, request: Request) -> Reply:
    """POST /v1/messages/count_tokens."""
    body = _body(request, "messages")
    state.known_model(body)
    tokens = count(_prompt(body))
    return json_reply({"input_tokens": tokens, "context_management": {"original_input_tokens": tokens}})


def _body(request: Request, *fields: str) -> dict[str, Any]:
    body = read_body(request)
    required(body, "model", *fields)
    if body["model"] == "":
        context = ", 'ctx': {'error': ValueError('Model is required')}"
        raise invalid("value_error", "body.model", "Value error, Model is required", "", context)
    if body["model"] is None:
        raise invalid("string_type", "body.model", "Input should be a valid string", "None")
    return body


def _prompt(body: dict[str, Any]) -> str:
    return conversation(body["messages"], body.get("system"))


def _reason(generation: Generation) -> str:
    return "stop_sequence" if generation.stop_reason else _REASONS[generation.finish_reason]


async def _stream(shown: dict[str, Any], model: str, generation: Generation) -> AsyncGenerator[bytes, None]:
    """The events of a stream: it has no `[DONE]`."""
    prompt = generation.sequence.prompt_tokens
    usage = {"input_tokens": prompt, "output_tokens": 0}
    begun: dict[str, Any] = {"content": [], "model": model, "stop_reason": None, "stop_sequence": None, "usage": usage}
    try:
        first = True
        async for text, _ in generation.parts():
            if first:
                first = False
                yield _event("message_start", message=shown | begun)
                yield _event("content_block_start", content_block={"type": "text", "text": ""}, index=0)
            yield _event("content_block_delta", delta={"type": "text_delta", "text": text}, index=0)
        yield _event("content_block_stop", index=0)
        delta = {"stop_reason": _reason(generation), "stop_sequence": generation.stop_reason}
        usage = {"input_tokens": prompt, "output_tokens": generation.sequence.produced}
        yield _event("message_delta", delta=delta, usage=usage)
        yield _event("message_stop")
    except EngineDead:
        yield _event("error", error={"type": "internal_error", "message": ENGINE_DEAD})
    finally:
        abandon([generation])


def _event(name: str, **fields: object) -> bytes:
    return f"event: {name}\ndata: ".encode() + dump({"type": name, **fields}) + b"\n\n"
