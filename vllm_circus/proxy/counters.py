"""What this worker counted: cumulative since it started, pushed whole each time.

Rules: the relay adds a handful of integers at the end of a request and one per read in between; everything else
(buckets, messages) is done once a second at most.
"""

from __future__ import annotations

import re
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from math import inf
from typing import TYPE_CHECKING, Final

from vllm_circus.bus.messages import (
    CHUNK_GAP_BUCKETS,
    DURATION_BUCKETS,
    FIRST_TOKEN_BUCKETS,
    Histogram,
    ModelCounts,
    WorkerMessage,
)
from vllm_circus.proxy.fields import number_at

if TYPE_CHECKING:
    from mypy_extensions import i64  # the compiler's name for an int that fits into a register

    from vllm_circus.proxy.exchange import Exchange

#: Status under which a request is counted whose client left before the end; the number is nginx's.
CLIENT_LEFT: Final = 499

#: Bytes of a response's end that are searched for its usage.
TAIL_WINDOW: Final = 16_384
#: Bytes before a response's last pieces that its usage may begin in; a piece longer than that is kept whole.
_ENOUGH: Final = 4096
#: Bytes of a chunk below which it is one of several that may follow a usage: `[DONE]`, an event's end, a comment.
_SHORT_EVENT: Final = 128
_USAGE: Final = re.compile(rb'"usage"[ \t\r\n]*:[ \t\r\n]*\{')
_COMMA: Final = 44
_BACKSLASH: Final = 92
_CLOSE: Final = 125  # a brace
#: Of a number of tokens.
_MOST_DIGITS: Final = 12
#: As vLLM writes it.
_USUAL_PROMPT: Final = b'"usage":{"prompt_tokens":'
_USUAL_TOTAL: Final = b',"total_tokens":'
_USUAL_COMPLETION: Final = b',"completion_tokens":'
_PROMPT: Final = re.compile(rb'"(?:prompt_tokens|input_tokens)"[ \t\r\n]*:[ \t\r\n]*([0-9]{1,12})')
_COMPLETION: Final = re.compile(rb'"(?:completion_tokens|output_tokens)"[ \t\r\n]*:[ \t\r\n]*([0-9]{1,12})')


class Distribution:
    """A histogram that grows."""

    __slots__ = ("_at", "_bounds", "_counts", "_here", "_high", "_low", "_total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._total = 0.0
        self._at = self._here = 0  # the bucket of the last value, and how many of it are not among the counts yet
        self._low, self._high = -inf, bounds[0]

    def add(self, seconds: float) -> None:
        """Count one value. Most are like the last one, and no bucket has to be looked for."""
        if not self._low < seconds <= self._high:
            self._turn_to(seconds)
        self._here += 1
        self._total += seconds

    def _turn_to(self, seconds: float) -> None:
        """On to the bucket of this value."""
        self._settle()
        bounds = self._bounds
        self._at = at = bisect_left(bounds, seconds)
        self._low = bounds[at - 1] if at else -inf
        self._high = bounds[at] if at < len(bounds) else inf

    def _settle(self) -> None:
        self._counts[self._at] += self._here
        self._here = 0

    def snapshot(self) -> Histogram:
        """The values so far."""
        self._settle()
        return Histogram(tuple(self._counts), self._total)


class ModelCounter:
    """The counters of one model; see ModelCounts for what each means."""

    __slots__ = (
        "chunk_gap",
        "chunks",
        "completion_tokens",
        "cut",
        "duration",
        "first_token",
        "in_flight",
        "prompt_tokens",
        "request_bytes",
        "response_bytes",
        "statuses",
        "streams",
        "waiting",
    )

    def __init__(self) -> None:
        self.statuses: Counter[int] = Counter()
        self.in_flight = self.waiting = self.streams = self.chunks = self.cut = 0
        self.prompt_tokens = self.completion_tokens = 0
        self.request_bytes = self.response_bytes = 0
        self.first_token = Distribution(FIRST_TOKEN_BUCKETS)
        self.duration = Distribution(DURATION_BUCKETS)
        self.chunk_gap = Distribution(CHUNK_GAP_BUCKETS)

    def add(self, exchange: Exchange, now: float) -> None:
        """Count a finished request; `now` is the relay's clock."""
        self.statuses[exchange.status] += 1
        self.request_bytes += exchange.request_bytes
        self.duration.add(now - exchange.began)
        if exchange.first_at:
            self.first_token.add(exchange.first_at - exchange.began)
            self.chunks += exchange.chunks
            self.response_bytes += exchange.response_bytes

    def add_usage(self, end: bytes) -> None:
        """Add the tokens that the end of a response tells of."""
        prompt, completion = read_usage(end)
        self.prompt_tokens += prompt
        self.completion_tokens += completion

    def snapshot(self) -> ModelCounts:
        """The counters now."""
        return ModelCounts(
            statuses=dict(self.statuses),
            in_flight=self.in_flight,
            waiting=self.waiting,
            streams=self.streams,
            chunks=self.chunks,
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.completion_tokens,
            cut=self.cut,
            request_bytes=self.request_bytes,
            response_bytes=self.response_bytes,
            first_token=self.first_token.snapshot(),
            duration=self.duration.snapshot(),
            chunk_gap=self.chunk_gap.snapshot(),
        )


class Counters:
    """All counters of this worker. `worker` is unique for ever: the pid and the wall clock at its start."""

    def __init__(self, models: Iterable[str], pid: int) -> None:
        self.models: dict[str, ModelCounter] = {}
        self.add(models)
        self.unrouted: Counter[int] = Counter()
        self._pid = pid
        self._worker = f"{pid}-{time.time_ns()}"

    def add(self, models: Iterable[str]) -> None:
        """Count for these as well; those that are gone from the plan keep what they have."""
        for name in models:
            self.models.setdefault(name, ModelCounter())

    def message(self, *, sequence: int, connections: int, leaving: bool = False) -> WorkerMessage:
        """What is pushed to the stats plugin."""
        return WorkerMessage(
            worker=self._worker,
            pid=self._pid,
            sent_at=time.time(),
            sequence=sequence,
            connections=connections,
            models={name: counter.snapshot() for name, counter in self.models.items()},
            unrouted=dict(self.unrouted),
            leaving=leaving,
        )


def kept_before(before: bytes, last: bytes, data: bytes, line: int) -> bytes:
    """What is kept of a response before this piece of it: usage may be split over pieces, and small ones follow it.

    `before` was kept before the `last` piece; `line` is that of the framing. Mostly a whole event follows another one,
    and nothing is joined.
    """
    is_event = line and len(data) >= _SHORT_EVENT and last.endswith(b"\n\n\r\n")
    if is_event or len(last) >= _ENOUGH:
        return last
    both = before + last
    return both if len(both) <= _ENOUGH else both[-_ENOUGH:]


def read_usage(tail: bytes) -> tuple[int, int]:
    """Prompt and completion tokens from the end of a response; zeros where it does not say.

    The last `usage` counts: streams may carry running sums. Text inside a message cannot pose as one, since its
    quotes are escaped.
    """
    at = tail.rfind(b'"usage"')
    if at >= 0 and not _is_escaped(tail, at):
        prompt_tokens, completion_tokens = _usual_usage(tail, at)
        if completion_tokens >= 0:
            return prompt_tokens, completion_tokens
    while at >= 0:
        match = _USAGE.match(tail, at)
        if match is not None and not _is_escaped(tail, at):
            prompt, completion = _PROMPT.search(tail, match.end()), _COMPLETION.search(tail, match.end())
            return int(prompt[1]) if prompt else 0, int(completion[1]) if completion else 0
        at = tail.rfind(b'"usage"', 0, at)
    return 0, 0


def _is_escaped(tail: bytes, at: int) -> bool:
    """Whether that quote is inside a string."""
    return at > 0 and tail[at - 1] == _BACKSLASH


def _usual_usage(tail: bytes, begin: int) -> tuple[int, int]:
    """The tokens of the usage that begins there, where it is written as vLLM writes it; a -1 where it is not."""
    prompt, at = _number_after(tail, begin, _USUAL_PROMPT)
    _, at = _number_after(tail, at, _USUAL_TOTAL)
    completion, at = _number_after(tail, at, _USUAL_COMPLETION)
    return prompt, completion if at < len(tail) and (tail[at] == _COMMA or tail[at] == _CLOSE) else -1


def _number_after(data: bytes, at: i64, mark: bytes) -> tuple[i64, i64]:
    """The number after this mark at `at`, and the index after it; -1 and the end of all where there is none."""
    size: i64 = len(data)
    begin: i64 = at + len(mark)
    if data[at:begin] != mark:
        return -1, size
    number, end = number_at(data, begin, min(size, begin + _MOST_DIGITS))
    return (number, end) if end > begin else (-1, size)
