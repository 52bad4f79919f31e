"""`/v1/responses`: the newer form of a chat, with answers that can be asked for again.

Answers are kept only with VLLM_ENABLE_RESPONSES_API_STORE=1, as in the real server.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import Any

from .chat import conversation
from .engine import EngineDead
from .http import Reply, Request, Stream
from .replies import ApiError, dump, integer, json_reply, read_body, required
from .serving import Generation, State, abandon, finish, new_id, start
from .text import count

KEPT = 1000
"""How many answers are kept at most; the oldest go first."""


async def create(state: State, request: Request) -> Reply | Stream:
    """POST /v1/responses."""
    body = read_body(request)
    required(body, "input")
    model = state.known_model(body)
    limit = integer(body, "max_output_tokens")
    state.check_limit(limit, "max_output_tokens")
    prompt = _prompt(body)
    tokens = count(prompt)
    state.check_prompt(len(prompt), tokens)
    state.refuse_if_draining()
    background = bool(body.get("background"))
    if background and (not state.options.store_responses or body.get("store") is False):
        raise ApiError(400, "invalid_request_error", "background can only be used when `store` is true", "background")
    if (previous := body.get("previous_response_id")) is not None:
        _found(state, str(previous))
    shown = _shown(state, body, new_id("resp_"), model, limit, tokens)
    generation = start(state, shown["id"], tokens, limit)
    if background:
        return json_reply(_in_background(state, body, shown, generation))
    if body.get("stream"):
        return Stream(_stream(state, body, shown, generation))
    text = (await finish([generation]))[0]
    whole = _finished(shown, generation, new_id("msg_"), text)
    _keep(state, body, whole)
    return json_reply(whole)


async def fetch(state: State, request: Request) -> Reply:
    """GET /v1/responses/{id}."""
    return json_reply(_found(state, request.path.split("/")[-1]))


async def cancel(state: State, request: Request) -> Reply:
    """POST /v1/responses/{id}/cancel: only answers in the background can be cancelled."""
    found = _found(state, request.path.split("/")[-2])
    if not found["background"]:
        raise ApiError(400, "invalid_request_error", "Cannot cancel a synchronous response.", "response_id")
    if task := state.background.get(found["id"]):
        task.cancel()
        state.stored[found["id"]] = found | {"status": "cancelled"}
    return json_reply(state.stored[found["id"]])


def _in_background(state: State, body: dict[str, Any], shown: dict[str, Any], generation: Generation) -> dict[str, Any]:
    """Go on without the client, who will ask again; what it reads now."""
    identity = shown["id"]
    queued = shown | {"status": "queued"}
    _keep(state, body, queued)

    async def make() -> None:
        try:
            text = (await finish([generation]))[0]
            _keep(state, body, _finished(shown, generation, new_id("msg_"), text))
        except ApiError:
            _keep(state, body, shown | {"status": "failed"})
        finally:
            del state.background[identity]

    state.background[identity] = asyncio.create_task(make())
    return queued


def _found(state: State, identity: str) -> dict[str, Any]:
    found = state.stored.get(identity)
    if found is None:
        raise ApiError(404, "invalid_request_error", f"Response with id '{identity}' not found.", "response_id")
    return found


def _keep(state: State, body: dict[str, Any], whole: dict[str, Any]) -> None:
    if not state.options.store_responses or body.get("store") is False:
        return
    state.stored[whole["id"]] = whole
    if len(state.stored) > KEPT:
        del state.stored[next(iter(state.stored))]


def _prompt(body: dict[str, Any]) -> str:
    """The conversation: one text is one turn of the user; other things than messages are left out."""
    given = body["input"]
    turns = [{"role": "user", "content": given}] if isinstance(given, str) else given
    if isinstance(turns, list):
        turns = [one for one in turns if isinstance(one, dict) and "content" in one]
    return conversation(turns, body.get("instructions"))


def _shown(
    state: State, body: dict[str, Any], identity: str, model: str, limit: int | None, prompt_tokens: int
) -> dict[str, Any]:
    """An answer that has begun."""
    return {
        "id": identity,
        "created_at": int(time.time()),
        "incomplete_details": None,
        "instructions": body.get("instructions"),
        "metadata": body.get("metadata"),
        "model": model,
        "object": "response",
        "output": [],
        "parallel_tool_calls": True,
        "temperature": body.get("temperature", 1.0),
        "tool_choice": "none",
        "tools": [],
        "top_p": body.get("top_p", 1.0),
        "background": bool(body.get("background")),
        "max_output_tokens": state.options.max_model_len - prompt_tokens if limit is None else limit,
        "max_tool_calls": None,
        "previous_response_id": body.get("previous_response_id"),
        "prompt": None,
        "reasoning": None,
        "service_tier": "auto",
        "status": "in_progress",
        "text": None,
        "top_logprobs": None,
        "truncation": "disabled",
        "usage": None,
        "user": body.get("user"),
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "kv_transfer_params": None,
        "ec_transfer_params": None,
        "input_messages": None,
        "output_messages": None,
    }


def _finished(shown: dict[str, Any], generation: Generation, message: str, text: str) -> dict[str, Any]:
    """The same answer at its end; it keeps the order of its fields."""
    cut = generation.finish_reason == "length"
    prompt, made = generation.sequence.prompt_tokens, generation.sequence.produced
    cached = {"cached_tokens": 0, "cache_write_tokens": 0, "input_tokens_per_turn": [], "cached_tokens_per_turn": []}
    reasoning = {"reasoning_tokens": 0, "tool_output_tokens": 0}
    return shown | {
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "output": [_message(message, [_part(text, None)], "completed")],
        "status": "incomplete" if cut else "completed",
        "usage": {
            "input_tokens": prompt,
            "input_tokens_details": cached,
            "output_tokens": made,
            "output_tokens_details": reasoning | {"output_tokens_per_turn": [], "tool_output_tokens_per_turn": []},
            "total_tokens": prompt + made,
        },
    }


def _message(identity: str, content: list[dict[str, Any]], status: str) -> dict[str, Any]:
    message: dict[str, Any] = {"id": identity, "content": content, "role": "assistant", "status": status}
    return message | {"type": "message", "phase": None}


def _part(text: str, logprobs: object) -> dict[str, Any]:
    return {"annotations": [], "text": text, "type": "output_text", "logprobs": logprobs}


async def _stream(
    state: State, body: dict[str, Any], shown: dict[str, Any], generation: Generation
) -> AsyncGenerator[bytes, None]:
    """The events of a stream: numbered, without `[DONE]`. A dead engine just ends the text, as in the real server."""
    events = _Events(new_id("msg_"))
    texts: list[str] = []
    try:
        yield events.make("response.created", response=shown)
        yield events.make("response.in_progress", response=shown)
        item = _message(events.item, [], "in_progress")
        yield events.make("response.output_item.added", item=item, output_index=0)
        yield events.make("response.content_part.added", True, part=_part("", []))
        try:
            async for text, _ in generation.parts():
                texts.append(text)
                yield events.make("response.output_text.delta", True, delta=text, logprobs=[])
        except EngineDead:
            generation.sequence.reason = "stop"
        whole = "".join(texts)
        yield events.make("response.output_text.done", True, logprobs=[], text=whole)
        yield events.make("response.content_part.done", True, part=_part(whole, None))
        item = _message(events.item, [_part(whole, None)], "completed")
        yield events.make("response.output_item.done", item=item, output_index=0)
        finished = _finished(shown, generation, events.item, whole)
        _keep(state, body, finished)
        yield events.make("response.completed", response=finished)
    finally:
        abandon([generation])


class _Events:
    """Makes the events of one stream; their fields come in alphabetical order."""

    def __init__(self, item: str) -> None:
        self.item = item
        self._number = -1

    def make(self, name: str, within: bool = False, **fields: object) -> bytes:
        """One event; `within` for those about a part of the message."""
        self._number += 1
        if within:
            fields |= {"content_index": 0, "item_id": self.item, "output_index": 0}
        fields |= {"sequence_number": self._number, "type": name}
        return f"event: {name}\ndata: ".encode() + dump(dict(sorted(fields.items()))) + b"\n\n"
