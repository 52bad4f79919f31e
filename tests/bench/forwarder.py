"""A stand-in for the production-stack router, which no package index has: `python -m tests.bench.forwarder PORT MODEL
ENGINE`, with the rivals' Python.

Built as such routers are, and with nothing else that they do: FastAPI under uvicorn (uvloop, httptools), the body
parsed to find the model, one shared aiohttp session without a limit of connections, every answer streamed. So it costs
less than what it stands for.
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import fastapi
import uvicorn
from fastapi.responses import JSONResponse, StreamingResponse

#: Headers that belong to one connection, to one engine, and a length, which is told anew.
_HOPS = frozenset(("connection", "keep-alive", "transfer-encoding"))
_OWN = _HOPS | {"host", "content-length"}


class Forwarder:
    """Sends each request to the engine that has its model."""

    def __init__(self, engines: dict[str, str]) -> None:
        self._engines = engines

    @asynccontextmanager
    async def live(self, _app: Any) -> AsyncIterator[None]:
        """The session is there as long as the application is."""
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False) as session:
            self._session = session
            yield

    async def forward(self, request: fastapi.Request) -> Any:
        """The answer of the model's engine."""
        body = await request.body()
        base = self._engines.get(json.loads(body).get("model"))
        if base is None:
            return JSONResponse({"error": {"message": "no such model"}}, 404)
        headers = {name: value for name, value in request.headers.items() if name not in _OWN}
        response = await self._session.post(base + request.url.path, data=body, headers=headers)
        kept = {
            name: value for name, value in response.headers.items() if name.lower() not in _OWN - {"content-length"}
        }
        return StreamingResponse(_pass_on(response), response.status, kept)


async def _pass_on(response: Any) -> AsyncIterator[bytes]:
    async with response:
        async for chunk in response.content.iter_any():
            yield chunk


def main() -> None:
    port, model, engine = sys.argv[1:]
    forwarder = Forwarder({model: f"http://127.0.0.1:{engine}"})
    app = fastapi.FastAPI(lifespan=forwarder.live)
    app.add_api_route("/v1/chat/completions", forwarder.forward, methods=["POST"])
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(port),
        access_log=False,
        log_level="warning",
        backlog=4096,
        timeout_keep_alive=600,
    )


if __name__ == "__main__":
    main()
