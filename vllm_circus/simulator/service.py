"""The routes beside the answers: health, models, metrics, tokens, adapters, sleep, and the faults."""

from __future__ import annotations

import os
import secrets
import time
import urllib.parse
from typing import Any

from .chat import conversation
from .faults import make_fault
from .http import Reply, Request
from .options import Lora
from .replies import ApiError, bad_request, detail, invalid, json_reply, read_body, required
from .serving import VERSION, State
from .text import pieces

SLEEPERS = frozenset({"weights", "kv_cache"})
"""The parts of an engine that sleep and wake."""


async def health(state: State, request: Request) -> Reply:  # noqa: ARG001 - the form of a route
    """GET /health and /ping: 200 while the engine lives, however it fares."""
    return Reply(503 if state.engine.dead else 200)


async def version(state: State, request: Request) -> Reply:  # noqa: ARG001 - the form of a route
    """GET /version."""
    return json_reply({"version": VERSION})


async def load(state: State, request: Request) -> Reply:  # noqa: ARG001 - the form of a route
    """GET /load: how many requests are being answered."""
    return json_reply({"server_load": state.engine.load})


async def metrics(state: State, request: Request) -> Reply:  # noqa: ARG001 - the form of a route
    """GET /metrics."""
    state.engine.observe()
    return Reply(200, state.metrics.render().encode(), "text/plain; version=1.0.0; charset=utf-8")


async def models(state: State, request: Request) -> Reply:  # noqa: ARG001 - the form of a route
    """GET /v1/models: every served name, then the adapters."""
    options = state.options
    cards = [_card(name, options.model, None, options.max_model_len) for name in options.names]
    cards += [_card(lora.name, lora.path, options.names[0], None) for lora in state.loras.values()]
    return json_reply({"object": "list", "data": cards})


def _card(name: str, root: str, parent: str | None, length: int | None) -> dict[str, Any]:
    permission = {
        "id": f"modelperm-{secrets.token_hex(8)}",
        "object": "model_permission",
        "created": int(time.time()),
        "allow_create_engine": False,
        "allow_sampling": True,
        "allow_logprobs": True,
        "allow_search_indices": False,
        "allow_view": True,
        "allow_fine_tuning": False,
        "organization": "*",
        "group": None,
        "is_blocking": False,
    }
    card = {"id": name, "object": "model", "created": int(time.time()), "owned_by": "vllm", "root": root}
    return card | {"parent": parent, "max_model_len": length, "permission": [permission]}


async def tokenize(state: State, request: Request) -> Reply:
    """POST /tokenize: of a prompt, or of a conversation."""
    body = read_body(request)
    state.known_model(body)
    if "messages" in body:
        text = conversation(body["messages"])
    else:
        required(body, "prompt")
        text = str(body["prompt"])
    ids = state.vocabulary.encode(text)
    strings = pieces(text) if body.get("return_token_strs") else None
    length = state.options.max_model_len
    return json_reply({"count": len(ids), "max_model_len": length, "tokens": ids, "token_strs": strings})


async def detokenize(state: State, request: Request) -> Reply:
    """POST /detokenize."""
    body = read_body(request)
    state.known_model(body)
    required(body, "tokens")
    tokens = body["tokens"]
    if not isinstance(tokens, list) or not all(isinstance(one, int) for one in tokens):
        raise invalid("list_type", "body.tokens", "Input should be a valid list", str(type(tokens).__name__))
    return json_reply({"prompt": state.vocabulary.decode(tokens)})


async def load_lora(state: State, request: Request) -> Reply:
    """POST /v1/load_lora_adapter: answers in plain text when it worked."""
    body = read_body(request)
    required(body, "lora_name", "lora_path")
    name, path = str(body["lora_name"]), str(body["lora_path"])
    if not name or not path:
        raise ApiError(400, "InvalidUserInput", "Both 'lora_name' and 'lora_path' must be provided.")
    if name in state.loras and not body.get("load_inplace"):
        how = "If you want to load the adapter in place, set 'load_inplace' to True."
        raise ApiError(400, "InvalidUserInput", f"The lora adapter '{name}' has already been loaded. {how}")
    if path.startswith("/") and not os.path.exists(path):  # noqa: ASYNC240, PTH110 - one look at a local file
        raise ApiError(404, "NotFoundError", f"Loading lora {name} failed: No adapter found for {path}")
    state.loras[name] = Lora(name, path)
    return Reply(200, f"Success: LoRA adapter '{name}' added successfully.".encode())


async def unload_lora(state: State, request: Request) -> Reply:
    """POST /v1/unload_lora_adapter."""
    body = read_body(request)
    name = str(body.get("lora_name", ""))
    if name not in state.loras:
        raise ApiError(404, "NotFoundError", f"The lora adapter '{name}' cannot be found.")
    del state.loras[name]
    return Reply(200, f"Success: LoRA adapter '{name}' removed successfully.".encode())


# --- dev mode only


async def sleep(state: State, request: Request) -> Reply:
    """POST /sleep?level=1|2: the engine stops; requests wait until it wakes up."""
    text = urllib.parse.parse_qs(request.query).get("level", ["1"])[0]
    try:
        level = int(text)
    except ValueError:
        why = "Input should be a valid integer, unable to parse string as an integer"
        raise invalid("int_parsing", "query.level", why, text) from None
    state.asleep = set(SLEEPERS)
    if level == 2:
        state.weightless = True
    state.engine.freeze("sleep")
    if state.options.cards is not None:
        await state.order(b"sleep")
    state.metrics.sleep |= {"awake": 0.0, "weights_offloaded": float(level == 1), "discard_all": float(level == 2)}
    return json_reply({"status": "sleeping", "level": level})


async def wake_up(state: State, request: Request) -> Reply:
    """POST /wake_up?tags=weights&tags=kv_cache: those parts, or all; awake when none is left asleep.

    Any part takes the memory for all of them.
    """
    tags = urllib.parse.parse_qs(request.query).get("tags")
    if state.options.cards is not None and (failed := await state.order(b"take")):
        raise ApiError(500, "InternalServerError", failed)
    state.asleep -= SLEEPERS if tags is None else set(tags)
    if not state.asleep:
        state.metrics.sleep |= {"awake": 1.0, "weights_offloaded": 0.0, "discard_all": 0.0}
        state.engine.thaw("sleep")
    return json_reply({"status": "sleeping" if state.asleep else "awake", "tags": tags})


async def collective_rpc(state: State, request: Request) -> Reply:
    """POST /collective_rpc with {"method"}: of the workers' methods only `reload_weights` is known here.

    Weights that have no memory cannot be filled. The real server ends then as well.
    """
    body = read_body(request)
    if body.get("method") != "reload_weights":
        raise ApiError(500, "InternalServerError", f"no such method: {body.get('method')!r}")
    if "weights" in state.asleep:
        raise ApiError(500, "InternalServerError", "CUDA error: an illegal memory access was encountered")
    state.weightless = False
    return json_reply({"results": [None]})


async def reset_prefix_cache(state: State, request: Request) -> Reply:  # noqa: ARG001 - the form of a route
    """POST /reset_prefix_cache: nothing may run meanwhile."""
    return json_reply({"success": not state.engine.load})


async def is_sleeping(state: State, request: Request) -> Reply:  # noqa: ARG001 - the form of a route
    """GET /is_sleeping."""
    return json_reply({"is_sleeping": bool(state.asleep)})


async def pause(state: State, request: Request) -> Reply:  # noqa: ARG001 - the form of a route
    """POST /pause: what runs is aborted, what comes waits."""
    state.paused = True
    state.engine.abort_all()
    state.engine.freeze("pause")
    return json_reply({"status": "paused"})


async def resume(state: State, request: Request) -> Reply:  # noqa: ARG001 - the form of a route
    """POST /resume."""
    state.paused = False
    state.engine.thaw("pause")
    return json_reply({"status": "resumed"})


async def is_paused(state: State, request: Request) -> Reply:  # noqa: ARG001 - the form of a route
    """GET /is_paused."""
    return json_reply({"is_paused": state.paused})


# --- only with --sim-faults


async def show_faults(state: State, request: Request) -> Reply:  # noqa: ARG001 - the form of a route
    """GET /sim/fault: what holds now."""
    active = [{"name": one.name, "value": one.value, "times": one.times} for one in state.faults.all()]
    return json_reply({"faults": active})


async def set_fault(state: State, request: Request) -> Reply:
    """POST /sim/fault with {"name", "value", "times"}: let it hold from now on."""
    body = read_body(request)
    try:
        state.set_fault(make_fault(body.get("name"), body.get("value"), body.get("times")))
    except ValueError as error:
        raise bad_request(str(error)) from None
    return await show_faults(state, request)


async def clear_faults(state: State, request: Request) -> Reply:
    """DELETE /sim/fault[?name=NAME]: let it hold no more, or none at all."""
    name = urllib.parse.parse_qs(request.query).get("name", [None])[0]
    state.clear_fault(name)
    return await show_faults(state, request)


def not_found() -> Reply:
    """What an unknown path is answered."""
    return detail(404, "Not Found")
