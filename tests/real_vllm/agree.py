"""One question asked twice, through the proxy and of the engine itself, and what must be the same in both answers.

Rules: what an engine makes up anew for every answer (ids, times) is left out, but not that it is there. Where a stream
is cut into pieces is the engine's mood, so neighbouring pieces are put together; their order, kinds and every other
field stay. An error counts as an answer: the client's exception, the status and the body.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import anthropic
import openai
import requests
from pydantic import BaseModel

#: Says that the proxy answered, not an engine.
OURS = "x-vllm-circus-error"
LIMIT = 60.0
#: Fields that differ between two answers to the same question.
_MADE_UP = (
    *("id", "created", "created_at", "completed_at", "item_id", "call_id", "tool_call_id", "response_id"),
    *("request_id", "previous_response_id", "sequence_number"),
)
_IDS = re.compile(r"\b((?:chatcmpl|cmpl|resp|msg|rs|fc|call|embd|score|rerank|chatcmpl-tool)[-_])[0-9a-f-]{8,}")


@dataclass(frozen=True)
class Side:
    """One way to a model: the clients that people use, which never try twice.

    Attributes:
        url: scheme, host and port.
        key: what to authenticate with.
    """

    url: str
    key: str

    @cached_property
    def openai(self) -> openai.OpenAI:
        """OpenAI's client."""
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=self.key, max_retries=0, timeout=LIMIT)

    @cached_property
    def anthropic(self) -> anthropic.Anthropic:
        """Anthropic's client."""
        return anthropic.Anthropic(base_url=self.url, auth_token=self.key, api_key=None, max_retries=0, timeout=LIMIT)

    def send(self, method: str, path: str, **options: Any) -> Any:
        """A request without any client of its own; raises Answered for what is no success."""
        headers = {"Authorization": f"Bearer {self.key}", **options.pop("headers", {})}
        answer = requests.request(method, self.url + path, headers=headers, timeout=LIMIT, **options)
        body = answer.json() if answer.content[:1] in b"{[" else answer.text
        if answer.status_code >= 400:
            raise Answered(answer.status_code, body, answer.headers.get(OURS))
        return body

    def post(self, path: str, body: object) -> Any:
        """POST of JSON."""
        return self.send("POST", path, json=body)


@dataclass(frozen=True)
class Pair:
    """The two ways to one model."""

    model: str
    through: Side
    direct: Side


class Answered(Exception):
    """An error that came as an answer to a bare request."""

    def __init__(self, status: int, body: Any, ours: str | None) -> None:
        super().__init__(status, body, ours)
        self.status, self.body, self.ours = status, body, ours


@dataclass(frozen=True)
class Failure:
    """What a client raised. `ours` is the word by which the proxy marks an answer of its own."""

    kind: str
    status: int
    body: Any
    ours: str | None


#: A question: put to one side, it returns an answer, a stream or nothing.
Question = Callable[[Side], Any]


def outcome(question: Question, side: Side) -> Any:
    """What becomes of a question, in a form that can be compared."""
    try:
        answer = question(side)
        if isinstance(answer, openai.Stream | anthropic.Stream):
            answer = merged(plain(event) for event in answer)
    except (openai.APIStatusError, anthropic.APIStatusError) as error:
        ours = error.response.headers.get(OURS)
        return Failure(type(error).__name__, error.response.status_code, plain(error.body), ours)
    except (openai.APIError, anthropic.APIError) as error:  # an error event within a stream
        return Failure(type(error).__name__, 0, plain(error.body), None)
    except Answered as error:
        return Failure(type(error).__name__, error.status, plain(error.body), error.ours)
    return plain(answer)


def assert_agree(pair: Pair, question: Question) -> Any:
    """The question is answered, and the same on both sides; returns the answer."""
    direct, through = outcome(question, pair.direct), outcome(question, pair.through)
    assert not isinstance(direct, Failure), direct
    assert through == direct
    return through


def assert_refused_alike(pair: Pair, question: Question) -> None:
    """The engine refuses the question, and its words come through."""
    direct, through = outcome(question, pair.direct), outcome(question, pair.through)
    assert isinstance(direct, Failure), direct
    assert through == direct


def assert_refused_by_us(pair: Pair, question: Question, ours: str) -> None:
    """Where the proxy has to answer itself, a client sees the same exception and status as the engine's."""
    direct, through = outcome(question, pair.direct), outcome(question, pair.through)
    assert isinstance(direct, Failure), direct
    assert (through.kind, through.status) == (direct.kind, direct.status)
    assert (through.ours, direct.ours) == (ours, None)


def plain(value: Any) -> Any:
    """A value as JSON has it, with the kind of what is made up anew in its place."""
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json", warnings=False)
    if isinstance(value, dict):
        return {key: type(item).__name__ if key in _MADE_UP else plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, str):
        return _IDS.sub(r"\1…", value)
    return value


def merged(events: Iterable[Any]) -> list[Any]:
    """A stream with its neighbouring pieces put together; the choices of an answer, which come mixed, apart."""
    tracks: dict[object, list[list[Any]]] = {}
    for event in events:
        pieces: list[Any] = []
        shape = json.dumps(_without_pieces(event, pieces), sort_keys=True)
        choices = event.get("choices") or [{}]
        track = tracks.setdefault(choices[0].get("index"), [])
        if track and pieces and track[-1][0] == shape:
            track[-1][1] = [before + piece for before, piece in zip(track[-1][1], pieces, strict=True)]
        else:
            track.append([shape, pieces])
    return [event for _, track in sorted(tracks.items(), key=str) for event in track]


#: Fields of an event that hold the next piece of a text or list rather than the whole.
_PIECES = (
    *("content", "text", "delta", "arguments", "partial_json", "reasoning", "reasoning_content", "thinking"),
    *("refusal", "logprobs", "tokens", "token_logprobs", "top_logprobs", "text_offset"),
)


def _without_pieces(value: Any, pieces: list[Any]) -> Any:
    """An event less its pieces, which are added to `pieces` in their order. Events that tell a whole have none."""
    if not isinstance(value, dict) or str(value.get("type", "")).endswith((".done", ".completed", ".added")):
        return [_without_pieces(item, pieces) for item in value] if isinstance(value, list) else value
    shape = {}
    for key, item in value.items():
        if key in _PIECES and isinstance(item, str | list):
            pieces.append(item)
            shape[key] = type(item).__name__
        else:
            shape[key] = _without_pieces(item, pieces)
    return shape
