"""`/v1/chat/completions`, `/v1/completions` and `/invocations`, which is one of the two."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from typing import Any

from .engine import EngineDead
from .http import Reply, Request, Stream
from .replies import bad_request, dump, integer, invalid, json_reply, read_body, required, shown, stream_error
from .serving import FINGERPRINT, Generation, State, abandon, finish, merged, new_id, start
from .text import count

DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class Asked:
    """What a client wants, of either route. `echo` is text that comes before each answer."""

    identity: str
    model: str
    prompts: tuple[int, ...]
    limit: int | None
    number: int
    stops: object
    usage: bool
    usage_always: bool
    echo: tuple[str, ...] = ()

    @property
    def prompt_tokens(self) -> int:
        """Tokens of all prompts."""
        return sum(self.prompts)


async def chat(state: State, request: Request) -> Reply | Stream:
    """POST /v1/chat/completions."""
    return await _chat(state, request, read_body(request))


async def completions(state: State, request: Request) -> Reply | Stream:
    """POST /v1/completions."""
    body = read_body(request)
    body["model"] = state.known_model(body)
    return await _completions(state, request, body)


async def invocations(state: State, request: Request) -> Reply | Stream:
    """POST /invocations: a chat or a completion, by the fields of the body; any model name is answered."""
    body = read_body(request) | {"model": None}
    return await (_chat if "messages" in body else _completions)(state, request, body)


async def _chat(state: State, request: Request, body: dict[str, Any]) -> Reply | Stream:
    required(body, "messages")
    model = state.known_model(body)
    prompt = conversation(body["messages"])
    limit = integer(body, "max_completion_tokens")
    limit = integer(body, "max_tokens") if limit is None else limit
    tokens = count(prompt)
    asked = _asked(state, body, new_id("chatcmpl-", request.headers.get("x-request-id")), model, limit)
    state.check_prompt(len(prompt), tokens)
    asked = replace(asked, prompts=(tokens,))
    generations = _begin(state, asked)
    if body.get("stream"):
        return Stream(_stream(asked, generations, ChatWriter(asked)))
    texts = await finish(generations)
    choices = [_chat_choice(index, one, text) for index, (one, text) in enumerate(zip(generations, texts, strict=True))]
    tail = {"prompt_logprobs": None, "prompt_token_ids": None, "prompt_text": None}
    return json_reply(_whole(asked, "chat.completion", choices, generations, tail))


async def _completions(state: State, request: Request, body: dict[str, Any]) -> Reply | Stream:
    model = state.known_model(body)
    prompts = _prompts(body.get("prompt"))
    limit = integer(body, "max_tokens")
    asked = _asked(
        state, body, new_id("cmpl-", request.headers.get("x-request-id")), model, 16 if limit is None else limit
    )
    counts = tuple(len(prompt) if isinstance(prompt, list) else count(prompt) for prompt in prompts)
    for prompt, tokens in zip(prompts, counts, strict=True):
        state.check_prompt(len(prompt) if isinstance(prompt, str) else 0, tokens)
    texts = tuple(state.vocabulary.decode(one) if isinstance(one, list) else one for one in prompts)
    asked = replace(asked, prompts=counts, echo=texts if body.get("echo") else ())
    generations = _begin(state, asked)
    if body.get("stream"):
        return Stream(_stream(asked, generations, TextWriter(asked)))
    answers = await finish(generations)
    choices = [
        _text_choice(asked, index, one, text)
        for index, (one, text) in enumerate(zip(generations, answers, strict=True))
    ]
    return json_reply(_whole(asked, "text_completion", choices, generations, {}))


def conversation(messages: object, system: object = None) -> str:
    """A conversation as the prompt that a chat template makes of it; raises ApiError for what is none."""
    if not isinstance(messages, list) or not all(isinstance(one, dict) for one in messages):
        raise invalid("list_type", "body.messages", "Input should be a valid list", shown(messages))
    if messages == []:
        raise bad_request("Cannot apply chat template to an empty conversation. Provide at least one message.")
    told = [{"role": "system", "content": system}] if system else []
    turns = [f"<|{one.get('role')}|>\n{content_text(one.get('content'))}\n" for one in [*told, *messages]]
    return "".join([*turns, "<|assistant|>\n"])


def content_text(content: object) -> str:
    """The text of one message: a string, or a list of parts of which some are text."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        return " ".join(text for text in parts if isinstance(text, str))
    return ""


def _prompts(prompt: object) -> list[str | list[int]]:
    """One prompt or several, each text or token ids."""
    if isinstance(prompt, str) and prompt:
        return [prompt]
    if isinstance(prompt, list) and prompt:
        if is_ids(prompt):
            return [prompt]
        if all(isinstance(one, str) or is_ids(one) for one in prompt):
            return prompt
    raise bad_request("Either prompt or prompt_embeds must be provided and non-empty.", "prompt")


def is_ids(value: object) -> bool:
    """Whether a value is a list of token ids."""
    return isinstance(value, list) and all(isinstance(one, int) for one in value)


def _asked(state: State, body: dict[str, Any], identity: str, model: str, limit: int | None) -> Asked:
    number = integer(body, "n")
    if number is not None and number < 1:
        raise bad_request(f"n must be at least 1, got {number}.")
    temperature = body.get("temperature")
    if isinstance(temperature, int | float) and temperature < 0:
        cold = float(temperature)
        raise bad_request(f"temperature must be non-negative, got {cold}.", "temperature", cold)
    state.check_limit(limit)
    options = body.get("stream_options")
    options = options if isinstance(options, dict) else {}
    return Asked(
        identity=identity,
        model=model,
        prompts=(),
        limit=limit,
        number=number or 1,
        stops=body.get("stop"),
        usage=bool(options.get("include_usage")),
        usage_always=bool(options.get("include_usage") and options.get("continuous_usage_stats")),
    )


def _begin(state: State, asked: Asked) -> list[Generation]:
    state.refuse_if_draining()
    return [
        start(state, asked.identity, tokens, asked.limit, asked.stops)
        for tokens in asked.prompts
        for _ in range(asked.number)
    ]


def _usage(prompt: int, completion: int) -> dict[str, Any]:
    return {"prompt_tokens": prompt, "total_tokens": prompt + completion, "completion_tokens": completion}


def _whole(
    asked: Asked, kind: str, choices: list[dict[str, Any]], generations: list[Generation], tail: dict[str, Any]
) -> dict[str, Any]:
    usage = _usage(asked.prompt_tokens, sum(one.sequence.produced for one in generations))
    usage |= {"prompt_tokens_details": None, "completion_tokens_details": None}
    return {
        "id": asked.identity,
        "object": kind,
        "created": int(time.time()),
        "model": asked.model,
        "choices": choices,
        "service_tier": None,
        "system_fingerprint": FINGERPRINT,
        "usage": usage,
        **tail,
        "kv_transfer_params": None,
        "ec_transfer_params": None,
        "metrics": None,
    }


def _chat_choice(index: int, generation: Generation, text: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": text, "refusal": None, "annotations": None, "audio": None}
    return {
        "index": index,
        "message": message | {"function_call": None, "reasoning": None},
        "logprobs": None,
        "finish_reason": generation.finish_reason,
        "stop_reason": generation.stop_reason,
        "token_ids": None,
        "routed_experts": None,
    }


def _text_choice(asked: Asked, index: int, generation: Generation, text: str) -> dict[str, Any]:
    echo = asked.echo[index // asked.number] if asked.echo else ""
    return {
        "index": index,
        "text": echo + text,
        "logprobs": None,
        "finish_reason": generation.finish_reason,
        "stop_reason": generation.stop_reason,
        "token_ids": None,
        "prompt_logprobs": None,
        "prompt_token_ids": None,
        "routed_experts": None,
    }


class ChatWriter:
    """The events of a chat stream. What does not change in a stream is made once: events are many."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        fixed = {"id": asked.identity, "object": "chat.completion.chunk", "created": int(time.time())}
        self._head = "data: " + dump(fixed | {"model": asked.model}).decode()[:-1]

    def first(self, index: int) -> bytes:
        """The event that names the role."""
        choice = f'{{"index":{index},"delta":{{"role":"assistant","content":""}},"logprobs":null,"finish_reason":null}}'
        usage = self._usage(0)
        if usage:
            usage = usage[:-1] + ',"completion_tokens_details":null}'
        return f'{self._head},"choices":[{choice}]{usage},"prompt_token_ids":null,"prompt_text":null}}\n\n'.encode()

    def part(self, index: int, text: str, generation: Generation, last: bool) -> bytes:
        """An event with text; the last one of an answer tells why it ended."""
        delta = f'{{"index":{index},"delta":{{"content":{_quote(text)}}},"logprobs":null'
        usage = self._usage(generation.sequence.taken)
        if usage:
            usage = usage[:-1] + ',"completion_tokens_details":null}'
        if not last:
            return f'{self._head},"choices":[{delta},"finish_reason":null,"token_ids":null}}]{usage}}}\n\n'.encode()
        reason = f'"finish_reason":"{generation.finish_reason}","stop_reason":{_quote(generation.stop_reason)}'
        mark = "" if self._asked.usage else f',"system_fingerprint":"{FINGERPRINT}"'
        return f'{self._head},"choices":[{delta},{reason},"token_ids":null}}]{usage}{mark}}}\n\n'.encode()

    def usage(self, completion: int) -> bytes:
        """The event after the last one, for who asked for it."""
        usage = dump(_usage(self._asked.prompt_tokens, completion)).decode()
        return f'{self._head},"choices":[],"usage":{usage},"system_fingerprint":"{FINGERPRINT}"}}\n\n'.encode()

    def _usage(self, completion: int) -> str:
        """The usage so far, for who wants it in every event."""
        if not self._asked.usage_always:
            return ""
        return ',"usage":' + dump(_usage(self._asked.prompt_tokens, completion)).decode()


class TextWriter(ChatWriter):
    """The events of a stream of /v1/completions."""

    def __init__(self, asked: Asked) -> None:
        super().__init__(asked)
        self._begun: set[int] = set()
        self._head = self._head.replace("chat.completion.chunk", "text_completion", 1)

    def first(self, index: int) -> bytes:  # noqa: ARG002 - the form that the events of both routes share
        """Nothing: a completion has no role."""
        return b""

    def part(self, index: int, text: str, generation: Generation, last: bool) -> bytes:
        """An event with text; the first one of an answer repeats the prompt for who asked for it."""
        if self._asked.echo and index not in self._begun:
            self._begun.add(index)
            text = self._asked.echo[index // self._asked.number] + text
        reason = _quote(generation.finish_reason if last else None)
        stop = _quote(generation.stop_reason if last else None)
        choice = (
            f'{{"index":{index},"text":{_quote(text)},"logprobs":null,"finish_reason":{reason},"stop_reason":{stop}'
        )
        usage = self._usage(generation.sequence.taken)
        mark = f',"system_fingerprint":"{FINGERPRINT}"' if last and not self._asked.usage else ""
        return (
            f'{self._head},"choices":[{choice},"prompt_token_ids":null,"token_ids":null}}]{usage}{mark}}}\n\n'.encode()
        )


async def _stream(asked: Asked, generations: list[Generation], writer: ChatWriter) -> AsyncGenerator[bytes, None]:
    """The events of a stream, to the end or to the death of the engine."""
    try:
        begun = False
        async for index, text, last in merged(generations):
            if not begun:
                begun = True
                for number in range(len(generations)):
                    if event := writer.first(number):
                        yield event
            yield writer.part(index, text, generations[index], last)
        if asked.usage:
            yield writer.usage(sum(one.sequence.produced for one in generations))
    except EngineDead:
        yield stream_error()
    finally:
        abandon(generations)
    yield DONE


_quote = json.JSONEncoder(ensure_ascii=False).encode
