"""Which path is answered by which function, and what every request goes through on its way there.

In the order of the real server: the key, the path, the method, then the route. Faults strike here, since they are
about requests as such.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from . import chat, messages, pooling, responses, service
from .http import Answer, Mangle, Reply, Request, Stream
from .replies import ApiError, detail, error_reply, json_reply
from .serving import State

Route = Callable[[State, Request], Awaitable[Reply | Stream]]
Table = dict[str, dict[str, Route]]

GUARDED = ("/v1", "/v2", "/inference", "/cohere")
"""Paths that a key guards; the real server leaves the others open, /invocations among them."""


@dataclass(frozen=True, slots=True)
class Found:
    """The route of a request; `pattern` is how /metrics calls it."""

    route: Route | None
    pattern: str
    allowed: str = ""


class App:
    """The application: one per server."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._table = routes(state)

    @property
    def table(self) -> Table:
        """Every path and its methods, for the log."""
        return self._table

    async def handle(self, request: Request) -> Answer:
        """Answer one request; never raises, but for being cancelled."""
        if not self._allowed(request):
            self._state.metrics.count_http("none", request.method, 401)
            return Answer(json_reply({"error": "Unauthorized"}, 401), common=())
        path = request.path.removeprefix(self._state.options.root_path) or "/"
        found = self._find(path, request.method)
        try:
            await self._strike(path)
            reply = await self._respond(request, path, found)
        except ApiError as error:
            reply = error_reply(error, path)
        except Exception as error:  # what a request makes go wrong must not end the server
            self._state.console.traceback((f'"{path}", in the route',), repr(error))
            reply = error_reply(ApiError(500, "InternalServerError", str(error)), path)
        self._state.metrics.count_http(found.pattern, request.method, reply.status)
        return Answer(reply, self._common(request), self._mangle(path, reply))

    async def _respond(self, request: Request, path: str, found: Found) -> Reply | Stream:
        if found.route is not None:
            return await found.route(self._state, request)
        if found.allowed:
            return detail(405, "Method Not Allowed", (("allow", found.allowed),))
        if path.endswith("/") and self._find(path.rstrip("/"), request.method).route is not None:
            host = request.headers.get("host", "")
            return Reply(307, headers=(("location", f"http://{host}{path.rstrip('/')}"),))
        return service.not_found()

    def _allowed(self, request: Request) -> bool:
        keys = self._state.options.api_keys
        path = request.path.removeprefix(self._state.options.root_path)
        if not keys or request.method == "OPTIONS" or not path.startswith(GUARDED):
            return True
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        return (
            scheme.lower() == "bearer" and sum(secrets.compare_digest(given.encode(), key.encode()) for key in keys) > 0
        )

    def _find(self, path: str, method: str) -> Found:
        pattern = _pattern(path)
        methods = self._table.get(pattern)
        if methods is None:
            return Found(None, "none")
        route = methods.get(method)
        return Found(route, pattern, "" if route else ", ".join(methods))

    def _common(self, request: Request) -> tuple[tuple[str, str], ...]:
        if not self._state.options.request_id_headers:
            return (("vary", "Origin"),)
        return (("vary", "Origin"), ("x-request-id", request.headers.get("x-request-id") or secrets.token_hex(16)))

    async def _strike(self, path: str) -> None:
        """The faults that come before an answer is made. Raises ApiError for one that is an error."""
        faults = self._state.faults
        if path == "/health":
            if faults.take("health-silent") is not None:
                await asyncio.get_running_loop().create_future()
            if (status := faults.take("health-error", 503)) is not None:
                raise ApiError(int(status), "InternalServerError", "Simulated failure.")
        elif path in ANSWERS:
            if (delay := faults.take("slow-first-byte")) is not None:
                await asyncio.sleep(delay)
            if (status := faults.take("error", 500)) is not None:
                raise ApiError(int(status), "InternalServerError", "Simulated failure.")

    def _mangle(self, path: str, reply: Reply | Stream) -> Mangle | None:
        """What the faults make wrong with the bytes of an answer."""
        faults = self._state.faults
        if path not in ANSWERS or not faults.all():
            return None
        mangle = Mangle(
            close_first=faults.take("no-answer") is not None,
            garbage=faults.take("garbage") is not None,
            header_size=int(faults.take("huge-header", 100_000) or 0),
        )
        if isinstance(reply, Stream):
            self._mangle_stream(mangle)
        else:
            mangle.length_error = 100 if faults.take("short-body") is not None else 0
            mangle.length_error = -100 if faults.take("long-body") is not None else mangle.length_error
        return mangle

    def _mangle_stream(self, mangle: Mangle) -> None:
        faults = self._state.faults
        closes, dies = faults.take("early-close", 1), faults.take("die-after-chunks")
        kills = faults.take("engine-dies-after-chunks")
        mangle.bad_chunk = faults.take("bad-chunk") is not None
        mangle.close_after = None if closes is None else int(closes)
        if dies is not None:
            mangle.on_chunk = partial(_at, int(dies), self._state.crash)
        elif kills is not None:
            mangle.on_chunk = partial(_at, int(kills), self._state.kill_engine)


def _at(number: int, action: Callable[[], None], chunk: int) -> None:
    if chunk == number:
        action()


def _pattern(path: str) -> str:
    """The path with what stands for an id replaced, as the table has it."""
    parts = path.split("/")
    if path.startswith("/v1/responses/") and len(parts) in (4, 5) and parts[3]:
        return "/".join([*parts[:3], "{response_id}", *parts[4:]])
    return path


ANSWERS = frozenset({"/invocations", "/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses"})
ANSWERS |= frozenset({"/v1/embeddings", "/pooling", "/score", "/v1/score", "/rerank", "/v1/rerank", "/v2/rerank"})
"""Paths whose answers the model makes: those that faults strike."""


def routes(state: State) -> Table:
    """The paths of a server with these options: a pooling server has others, and some must be allowed."""
    options = state.options
    table: Table = {
        "/load": {"GET": service.load},
        "/version": {"GET": service.version},
        "/health": {"GET": service.health},
        "/metrics": {"GET": service.metrics},
        "/tokenize": {"POST": service.tokenize},
        "/detokenize": {"POST": service.detokenize},
        "/v1/models": {"GET": service.models},
        "/ping": {"GET": service.health, "POST": service.health},
    }
    table |= POOLING if options.pooling else GENERATING
    if options.runtime_lora:
        table["/v1/load_lora_adapter"] = {"POST": service.load_lora}
        table["/v1/unload_lora_adapter"] = {"POST": service.unload_lora}
    if options.dev_mode:
        table |= DEV
    if options.sim.control:
        table["/sim/fault"] = {
            "GET": service.show_faults,
            "POST": service.set_fault,
            "DELETE": service.clear_faults,
        }
    return table


GENERATING: Table = {
    "/invocations": {"POST": chat.invocations},
    "/v1/chat/completions": {"POST": chat.chat},
    "/v1/responses": {"POST": responses.create},
    "/v1/responses/{response_id}": {"GET": responses.fetch},
    "/v1/responses/{response_id}/cancel": {"POST": responses.cancel},
    "/v1/completions": {"POST": chat.completions},
    "/v1/messages": {"POST": messages.messages},
    "/v1/messages/count_tokens": {"POST": messages.count_tokens},
}

POOLING: Table = {
    "/invocations": {"POST": pooling.embeddings},
    "/pooling": {"POST": pooling.embeddings},
    "/v1/embeddings": {"POST": pooling.embeddings},
    "/score": {"POST": pooling.score},
    "/v1/score": {"POST": pooling.score},
    "/rerank": {"POST": pooling.rerank},
    "/v1/rerank": {"POST": pooling.rerank},
    "/v2/rerank": {"POST": pooling.rerank},
}

DEV: Table = {
    "/sleep": {"POST": service.sleep},
    "/wake_up": {"POST": service.wake_up},
    "/is_sleeping": {"GET": service.is_sleeping},
    "/collective_rpc": {"POST": service.collective_rpc},
    "/reset_prefix_cache": {"POST": service.reset_prefix_cache},
    "/pause": {"POST": service.pause},
    "/resume": {"POST": service.resume},
    "/is_paused": {"GET": service.is_paused},
}
"""Paths of VLLM_SERVER_DEV_MODE=1."""
