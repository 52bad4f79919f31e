"""Which engine made a stored response: remembered as it passes, or asked for.

Rules: an id says nothing about its maker, and only the maker knows it. Who handed the response out remembers that,
bounded; another worker, or one that was started since, asks every engine that is ready, all at once, and takes the one
that answers 200. Nothing else of those answers is read.
"""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vllm_circus.proxy.backend import Backend

#: Responses whose maker is remembered.
MOST_STORED = 10_000
#: Seconds that engines have to say whether they know a response.
PATIENCE = 5.0
_RESPONSE_ID = re.compile(rb'"id"[ \t\r\n]*:[ \t\r\n]*"(resp_[A-Za-z0-9_-]{1,120})"')
_KNOWN = re.compile(rb"HTTP/1\.[01] 200[ \r]")


class Makers:
    """The makers of responses, by the responses' ids."""

    __slots__ = ("_names",)

    def __init__(self) -> None:
        self._names: OrderedDict[str, str] = OrderedDict()

    def note(self, data: bytes, maker: str) -> None:
        """An engine's answer begins like this; `maker` is the engine's name."""
        match = _RESPONSE_ID.search(data, 0, 4096)
        if match is not None:
            self.set(match[1].decode(), maker)

    def set(self, response: str, maker: str) -> None:
        """Remember one."""
        self._names[response] = maker
        if len(self._names) > MOST_STORED:
            self._names.popitem(last=False)

    def get(self, response: str) -> str | None:
        """The engine's name, or None where it is not known."""
        return self._names.get(response)


async def find_maker(path: bytes, backends: Sequence[Backend]) -> Backend | None:
    """The backend that answers GET of this path with 200, or None where none does in time."""
    asked = {asyncio.ensure_future(_knows(backend, path)): backend for backend in backends}
    try:
        async with asyncio.timeout(PATIENCE):
            for task in asyncio.as_completed(asked):
                with suppress(OSError, EOFError, ValueError, asyncio.LimitOverrunError):
                    backend = await task
                    if backend is not None:
                        return backend
    except TimeoutError:
        return None
    finally:
        for task in asked:
            task.cancel()
    return None


async def _knows(backend: Backend, path: bytes) -> Backend | None:
    """The backend, if it knows what is stored there. Raises OSError, EOFError, ValueError and LimitOverrunError."""
    endpoint = backend.endpoint
    if endpoint.uds:
        reader, writer = await asyncio.open_unix_connection(endpoint.uds)
    else:
        reader, writer = await asyncio.open_connection(endpoint.host, endpoint.port)
    try:
        writer.write(b"GET %b HTTP/1.1\r\n%bConnection: close\r\n\r\n" % (path, backend.lines))
        return backend if _KNOWN.match(await reader.readuntil(b"\n")) else None
    finally:
        writer.transport.abort()
