"""What the torture's clients ask of its engines, and whether what came is what was sent. Pure.

Rules: the target's query says what to answer, so an engine need not understand bodies; only a stream's seed is in the
body, since clients' headers differ in little but their length. Each event carries its number,
the stream's seed and a checksum of both; so an event that was lost, doubled, mixed up or changed shows, and a stream
that ends early and looks whole shows above all.
"""

from __future__ import annotations

import json
import re
import zlib
from dataclasses import dataclass
from enum import Enum

PATH = "/v1/chat/completions"
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
DONE = b"data: [DONE]\n\n"
LAST_CHUNK = b"0\r\n\r\n"
_STREAM = re.compile(rb"events=([0-9]{1,9})&pace=([0-9]{1,6})")
_SEED = re.compile(rb'"seed": ([0-9]{1,9})')
_BYTES = re.compile(rb"bytes=([0-9]{1,12})")
_EVENT = re.compile(rb"data: (.*)\n\n")


@dataclass(frozen=True)
class Order:
    """A stream: so many events, one each `pace` milliseconds."""

    events: int
    pace: int
    seed: int = 0

    @property
    def target(self) -> str:
        return f"{PATH}?events={self.events}&pace={self.pace}"

    def event(self, number: int) -> bytes:
        """One event, not yet a chunk."""
        checksum = zlib.crc32(b"%d:%d" % (self.seed, number))
        return b'data: {"seed":%d,"n":%d,"crc":%d,"choices":[]}\n\n' % (self.seed, number, checksum)


def read_stream(line: bytes, body: bytes) -> Order | None:
    """The stream that a request asks for, by its first line and the end of its body."""
    match, seed = _STREAM.search(line), _SEED.search(body)
    return Order(int(match[1]), int(match[2]), int(seed[1]) if seed else 0) if match else None


def read_bytes(line: bytes) -> int | None:
    """The length of the plain body that a request line asks for."""
    match = _BYTES.search(line)
    return int(match[1]) if match else None


def chunk(data: bytes) -> bytes:
    """One HTTP chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def request(target: str = PATH, *, model: str = "alpha", seed: int = 0) -> bytes:
    """A chat request."""
    body = json.dumps({"model": model, "messages": [], "stream": "events=" in target, "seed": seed}).encode()
    head = (f"POST {target} HTTP/1.1".encode(), b"Host: x", b"Content-Type: application/json")
    return b"\r\n".join((*head, b"Content-Length: %d" % len(body))) + b"\r\n\r\n" + body


class Kind(Enum):
    """What became of a stream."""

    WHOLE = "every event, the end of the events, the end of the body"
    CUT = "a part of the events, and no end"
    REFUSED = "another status than 200"
    NOTHING = "no answer"
    CORRUPT = "an event that is not the next one"
    FALSE = "an end before the last event"


def judge(raw: bytes, order: Order) -> Kind:
    """What a client got of a stream that it asked for, head included, up to the end of the connection or body."""
    head, found, body = raw.partition(b"\r\n\r\n")
    if not found:
        return Kind.NOTHING
    if not head.startswith(b"HTTP/1.1 200 "):
        return Kind.REFUSED
    data, ended = _unchunk(body)
    events = _EVENT.findall(data)
    said_done = bool(events) and events[-1] == b"[DONE]"
    ours = [event for event in events if not event.startswith((b'{"error"', b"[DONE]"))]
    if any(b"data: %b\n\n" % event != order.event(number) for number, event in enumerate(ours)):
        return Kind.CORRUPT
    whole = len(ours) == order.events
    if ended or said_done:
        return Kind.WHOLE if whole and ended and said_done else Kind.FALSE
    return Kind.CUT


def _unchunk(body: bytes) -> tuple[bytes, bool]:
    """The data of whole chunks, and whether the last one came."""
    parts: list[bytes] = []
    at = 0
    while True:
        line = body.find(b"\r\n", at)
        if line < 0:
            return b"".join(parts), False
        size = int(body[at:line], 16)
        if not size:
            return b"".join(parts), body[line:] == b"\r\n\r\n"
        end = line + 2 + size
        if len(body) < end + 2:
            return b"".join(parts), False
        parts.append(body[line + 2 : end])
        at = end + 2
