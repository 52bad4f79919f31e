"""A forwarder that keeps what goes to an engine and comes back: `tap.py PORT TARGET FOLDER`.

It stands between the proxy and an engine, so that both ends of one and the same request, and of its answer, can be
compared byte by byte. They lie in `<X-Request-Id>.request` and `<X-Request-Id>.answer`; a connection carries one
request after the other, so what comes from the engine belongs to the last one.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
from collections.abc import Callable
from pathlib import Path

_REQUEST_ID = re.compile(rb"\r\nX-Request-Id: ([!-~]+)\r\n")


class Record:
    """One connection's requests and answers on disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._name = "none"
        self._answered = True

    def request(self, data: bytes) -> None:
        """A piece for the engine. The proxy sends a head in one piece."""
        if self._answered and (match := _REQUEST_ID.search(data)):
            self._name = match[1].decode()
            self._answered = False
        self._add("request", data)

    def answer(self, data: bytes) -> None:
        """A piece from the engine."""
        self._answered = True
        self._add("answer", data)

    def _add(self, kind: str, data: bytes) -> None:
        with (self._folder / f"{self._name}.{kind}").open("ab") as file:
            file.write(data)


async def forward(port: int, target: int, folder: Path) -> None:
    """Forward loopback connections for ever; `folder` must exist."""

    async def serve(client: asyncio.StreamReader, answer: asyncio.StreamWriter) -> None:
        try:
            engine, request = await asyncio.open_connection("127.0.0.1", target)
        except OSError:
            answer.close()  # the engine still loads
            return
        record = Record(folder)
        await asyncio.gather(_copy(client, request, record.request), _copy(engine, answer, record.answer))

    server = await asyncio.start_server(serve, "127.0.0.1", port)
    await server.serve_forever()


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter, keep: Callable[[bytes], None]) -> None:
    """Hand bytes on until the source ends; they are on disk before anybody sees them."""
    with contextlib.suppress(OSError):
        while data := await source.read(65536):
            keep(data)
            sink.write(data)
            await sink.drain()
    sink.close()


if __name__ == "__main__":
    records = Path(sys.argv[3])
    records.mkdir(parents=True, exist_ok=True)
    asyncio.run(forward(int(sys.argv[1]), int(sys.argv[2]), records))
