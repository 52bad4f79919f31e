"""Clients that ask a model for streams at a steady rate, and say what became of each."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter
from dataclasses import dataclass
from types import TracebackType
from urllib.parse import urlsplit

#: Tokens of each answer: a quarter of a second or so, with the simulator's usual times.
TOKENS = 16
_LAST = b"data: [DONE]\n\n\r\n0\r\n\r\n"


@dataclass(frozen=True)
class Asked:
    """One request: `status` is 0 where no answer came, `whole` is a stream with its end, `began` is monotonic."""

    began: float
    status: int
    whole: bool
    answer: bytes

    @property
    def looks_whole(self) -> bool:
        """Whether a client would take it for a whole answer: the last chunk is there."""
        # a head may end like a last chunk
        body = self.answer.partition(b"\r\n\r\n")[2]
        return self.status == 200 and body.endswith(b"0\r\n\r\n")


class Traffic:
    """So many requests a second, each on a connection of its own, from `with` to its end; then `done` has all."""

    def __init__(self, url: str, model: str, rate: float) -> None:
        split = urlsplit(url)
        self._address = split.hostname, split.port
        self._rate = rate
        body = json.dumps(
            {"model": model, "stream": True, "max_tokens": TOKENS, "messages": [{"role": "user", "content": "x"}]}
        )
        self._message = (
            "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        ).encode()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self.done: list[Asked] = []

    def __enter__(self) -> Traffic:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Ask no more, and wait for what was asked."""
        self._stop.set()
        self._thread.join()

    def summary(self) -> Counter[str]:
        """How many of each kind."""
        return Counter("whole" if one.whole else f"status {one.status}" for one in self.done)

    async def _run(self) -> None:
        tasks = set()
        due = time.monotonic()
        while not self._stop.is_set():
            tasks.add(asyncio.create_task(self._ask()))
            due += 1 / self._rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        await asyncio.gather(*tasks)

    async def _ask(self) -> None:
        began = time.monotonic()
        answer = b""
        try:
            reader, writer = await asyncio.open_connection(*self._address)
            writer.write(self._message)
            while data := await asyncio.wait_for(reader.read(65536), 60):
                answer += data
            writer.close()
        except (OSError, TimeoutError):
            pass  # what came until then tells it
        status = int(answer[9:12]) if answer.startswith(b"HTTP/1.1 ") else 0
        self.done.append(Asked(began, status, status == 200 and answer.endswith(_LAST), answer))
