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

from . import chat, service
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
        mangle = self._health_fault(path)
        self._state.serving += 1
        try:
            reply = await self._respond(request, path, found)
            if path in ANSWERS:
                mangle = await self._answer_fault(reply)
        except ApiError as error:
            reply = error_reply(error, path)
        finally:
            self._state.serving -= 1
        reply = self._replaced(path, reply)
        self._state.metrics.count_http(found.pattern, request.method, reply.status)
        return Answer(reply, self._common(request), mangle)

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
        return scheme.lower() == "bearer" and any(
            [secrets.compare_digest(given.encode(), key.encode()) for key in keys]
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

    def _health_fault(self, path: str) -> Mangle | None:
        if path == "/health" and self._state.faults.take("health-silent") is not None:
            return Mangle(silent=True)
        return None

    def _replaced(self, path: str, reply: Reply | Stream) -> Reply | Stream:
        """A health answer that a fault has changed."""
        if path == "/health" and (status := self._state.faults.take("health-error", 503)) is not None:
            return Reply(int(status))
        return reply

    async def _answer_fault(self, reply: Reply | Stream) -> Mangle | None:
        """What the faults do to an answer of the model. Raises ApiError for a fault that is one."""
        faults = self._state.faults
        if not faults.all():
            return None
        if (status := faults.take("error", 500)) is not None:
            if isinstance(reply, Stream):
                await reply.chunks.aclose()
            raise ApiError(int(status), "InternalServerError", "Simulated failure.")
        if (delay := faults.take("slow-first-byte")) is not None:
            await asyncio.sleep(delay)
        return Mangle(
            close_first=faults.take("no-answer") is not None,
            garbage=faults.take("garbage") is not None,
            header_size=int(faults.take("huge-header", 100_000) or 0),
            **self._stream_fault() if isinstance(reply, Stream) else self._body_fault(),
        )

    def _stream_fault(self) -> dict[str, object]:
        faults = self._state.faults
        closes = faults.take("early-close", 1)
        dies, kills = faults.take("die-after-chunks"), faults.take("engine-dies-after-chunks")
        found: dict[str, object] = {"bad_chunk": faults.take("bad-chunk") is not None}
        if closes is not None:
            found["close_after"] = int(closes)
        if dies is not None:
            found["on_chunk"] = partial(_at, int(dies), self._state.crash)
        elif kills is not None:
            found["on_chunk"] = partial(_at, int(kills), self._state.kill_engine)
        return found

    def _body_fault(self) -> dict[str, object]:
        if self._state.faults.take("short-body") is not None:
            return {"length_error": 100}
        return {"length_error": -100} if self._state.faults.take("long-body") is not None else {}


def _at(number: int, action: Callable[[], None], chunk: int) -> None:
    if chunk == number:
        action()


def _pattern(path: str) -> str:
    """The path with what stands for an id replaced, as the table has it."""
    parts = path.split("/")
    if path.startswith("/v1/responses/") and len(parts) in (4, 5) and parts[3]:
        return "/".join([*parts[:3], "{response_id}", *parts[4:]])
    return path


ANSWERS = frozenset({"/v1/chat/completions", "/v1/completions", "/invocations"})
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
    table |= GENERATING
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
    "/v1/completions": {"POST": chat.completions},
}

DEV: Table = {
    "/sleep": {"POST": service.sleep},
    "/wake_up": {"POST": service.wake_up},
    "/is_sleeping": {"GET": service.is_sleeping},
    "/pause": {"POST": service.pause},
    "/resume": {"POST": service.resume},
    "/is_paused": {"GET": service.is_paused},
}
"""Paths of VLLM_SERVER_DEV_MODE=1."""
