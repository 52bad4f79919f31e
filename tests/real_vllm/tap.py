"""A forwarder that keeps what an engine sends: `tap.py PORT TARGET FOLDER`, a file for each connection.

It stands between the proxy and an engine, so that both ends of one and the same answer can be compared byte by byte.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sys
from pathlib import Path


async def forward(port: int, target: int, folder: Path) -> None:
    """Forward loopback connections for ever; `folder` must exist."""
    numbers = itertools.count()

    async def serve(client: asyncio.StreamReader, answer: asyncio.StreamWriter) -> None:
        try:
            engine, request = await asyncio.open_connection("127.0.0.1", target)
        except OSError:
            answer.close()  # the engine still loads
            return
        record = folder / f"{next(numbers)}.bytes"
        await asyncio.gather(_copy(client, request, None), _copy(engine, answer, record))

    server = await asyncio.start_server(serve, "127.0.0.1", port)
    await server.serve_forever()


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter, record: Path | None) -> None:
    """Hand bytes on until the source ends; they are on disk before anybody sees them."""
    with contextlib.suppress(OSError):
        while data := await source.read(65536):
            if record:
                with record.open("ab") as file:
                    file.write(data)
            sink.write(data)
            await sink.drain()
    sink.close()


if __name__ == "__main__":
    records = Path(sys.argv[3])
    records.mkdir(parents=True, exist_ok=True)
    asyncio.run(forward(int(sys.argv[1]), int(sys.argv[2]), records))
