"""The routes of a pooling server: embeddings, scores, and an order by relevance."""

from __future__ import annotations

import base64
import struct
import time
from typing import Any

from .chat import conversation, is_ids
from .http import Reply, Request
from .replies import bad_request, json_reply, read_body, required
from .serving import State, finish, new_id, start
from .text import count, embedding, similarity


async def embeddings(state: State, request: Request) -> Reply:
    """POST /v1/embeddings (and /pooling): a vector of length 1 for each input, as numbers or in base64."""
    body = read_body(request)
    model = state.known_model(body)
    if "messages" in body:
        inputs: list[str] = [conversation(body["messages"])]
    else:
        required(body, "input")
        inputs = _texts(state, body["input"])
    size = body.get("dimensions") or state.options.sim.embedding_size
    if not isinstance(size, int) or not 1 <= size <= state.options.sim.embedding_size:
        raise bad_request(f"dimensions must be between 1 and {state.options.sim.embedding_size}", "dimensions", size)
    coded = body.get("encoding_format") == "base64"
    data = [
        {"index": index, "object": "embedding", "embedding": _coded(embedding(text, size), coded)}
        for index, text in enumerate(inputs)
    ]
    return json_reply(await _answer(state, request, model, "embd-", data, inputs))


async def score(state: State, request: Request) -> Reply:
    """POST /score and /v1/score: how close each second text is to the first, or each pair."""
    body = read_body(request)
    model = state.known_model(body)
    required(body, "text_1", "text_2")
    ones, others = _texts(state, body["text_1"]), _texts(state, body["text_2"])
    if len(ones) == 1:
        ones = ones * len(others)
    if len(ones) != len(others):
        raise bad_request("Input lengths must be either 1:1, 1:N or N:N")
    data = [
        {"index": index, "object": "score", "score": _close(state, one, other)}
        for index, (one, other) in enumerate(zip(ones, others, strict=True))
    ]
    return json_reply(await _answer(state, request, model, "score-", data, ones + others))


async def rerank(state: State, request: Request) -> Reply:
    """POST /rerank, /v1/rerank and /v2/rerank: the documents, the closest to the query first."""
    body = read_body(request)
    model = state.known_model(body)
    required(body, "query", "documents")
    query = _texts(state, body["query"])[0]
    documents = _texts(state, body["documents"])
    scored = sorted(((_close(state, query, text), index) for index, text in enumerate(documents)), reverse=True)
    top = body.get("top_n")
    chosen = scored[:top] if isinstance(top, int) and top > 0 else scored
    results = [
        {"index": index, "document": {"text": documents[index], "multi_modal": None}, "relevance_score": value}
        for value, index in chosen
    ]
    tokens = sum(map(count, [query, *documents]))
    identity = new_id("rerank-", request.headers.get("x-request-id"))
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    await _compute(state, identity, tokens)
    return json_reply({"id": identity, "model": model, "usage": usage, "results": results})


def _texts(state: State, given: object) -> list[str]:
    """One text or several; token ids are turned back into text."""
    if isinstance(given, str):
        texts = [given]
    elif isinstance(given, list) and given and all(isinstance(one, str) for one in given):
        texts = given
    elif isinstance(given, list) and given and is_ids(given):
        texts = [state.vocabulary.decode(given)]
    elif isinstance(given, list) and given and all(is_ids(one) for one in given):
        texts = [state.vocabulary.decode(one) for one in given]
    else:
        raise bad_request("Either prompt or prompt_embeds must be provided and non-empty.", "prompt")
    for text in texts:
        state.check_prompt(len(text), count(text))
    return texts


def _coded(vector: list[float], coded: bool) -> object:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode() if coded else vector


def _close(state: State, one: str, other: str) -> float:
    size = state.options.sim.embedding_size
    return similarity(embedding(one, size), embedding(other, size))


async def _answer(
    state: State, request: Request, model: str, prefix: str, data: list[dict[str, Any]], texts: list[str]
) -> dict[str, Any]:
    tokens = sum(map(count, texts))
    identity = new_id(prefix, request.headers.get("x-request-id"))
    await _compute(state, identity, tokens)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0, "prompt_tokens_details": None}
    head = {"id": identity, "object": "list", "created": int(time.time()), "model": model}
    return head | {"data": data, "usage": usage}


async def _compute(state: State, identity: str, tokens: int) -> None:
    """Let the engine take the time of one step."""
    state.refuse_if_draining()
    await finish([start(state, identity, tokens, 1)])
