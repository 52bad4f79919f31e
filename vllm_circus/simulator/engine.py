"""The simulated engine: which requests run, and when each of them gets its next token.

One step gives one token to every running request, as a batch on a GPU does, so the cost of a step hardly grows with
the number of requests and `iteration_tokens_total` counts what it counts in the real engine. A request that is not
read keeps its place: its tokens gather and its reader gets several at once.

Everything here runs on one event loop; nothing waits except the readers, in `Sequence.more`.
"""

from __future__ import annotations

import asyncio
from collections import deque

from .metrics import Metrics

HELD = frozenset({"sleep", "pause"})
"""Reasons to make no progress under which requests do not even start: they wait."""


class EngineDead(Exception):
    """The engine is gone: what runs fails, and nothing else can start."""


class Sequence:
    """One request inside the engine."""

    __slots__ = ("_error", "_future", "arrived", "last", "limit", "produced", "prompt_tokens", "reason", "taken")

    def __init__(self, prompt_tokens: int, limit: int, reason: str, now: float) -> None:
        self.prompt_tokens = prompt_tokens
        self.limit = limit
        self.reason = reason
        self.arrived = self.last = now
        self.produced = 0
        self.taken = 0
        self._future: asyncio.Future[None] | None = None
        self._error = False

    async def more(self) -> tuple[int, int]:
        """Wait for tokens and take them: numbers of the first and past the last; equal at the end.

        Raises EngineDead.
        """
        if self.produced == self.taken and self.produced < self.limit and not self._error:
            self._future = asyncio.get_running_loop().create_future()
            await self._future
        if self.produced == self.taken and self._error:
            raise EngineDead
        first, self.taken = self.taken, self.produced
        return first, self.taken

    async def all(self) -> int:
        """Wait until the last token is there; how many there are. Raises EngineDead."""
        first, after = await self.more()
        while first != after and after < self.limit:
            first, after = await self.more()
        return self.produced

    def wake(self, *, error: bool = False) -> None:
        """Tell the reader that something happened."""
        self._error = self._error or error
        if self._future is not None and not self._future.done():
            self._future.set_result(None)


class Engine:
    """Requests that wait, that have no token yet, and that run. Times in seconds."""

    def __init__(self, metrics: Metrics, *, first_token: float, per_token: float, at_once: int, kv_tokens: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._metrics = metrics
        self._first_token = first_token
        self._per_token = per_token
        self._at_once = at_once
        self._kv_tokens = max(1, kv_tokens)
        self._waiting: deque[Sequence] = deque()
        self._started: dict[Sequence, asyncio.TimerHandle] = {}
        self._running: set[Sequence] = set()
        self._timer: asyncio.Handle | None = None
        self._frozen: set[str] = set()
        self._emptied = asyncio.Event()
        self._dead = False

    @property
    def dead(self) -> bool:
        """Whether the engine is gone."""
        return self._dead

    @property
    def load(self) -> int:
        """How many requests the engine has, waiting ones too."""
        return len(self._waiting) + len(self._started) + len(self._running)

    async def empty(self) -> None:
        """Wait until the engine has no request, or is gone."""
        while self.load and not self._dead:
            self._emptied.clear()
            await self._emptied.wait()

    def submit(self, prompt_tokens: int, limit: int, reason: str) -> Sequence:
        """Take a request for `limit` tokens that ends for `reason` (stop, length). Raises EngineDead."""
        if self._dead:
            raise EngineDead
        sequence = Sequence(prompt_tokens, limit, reason, self._loop.time())
        self._metrics.counters["prefix_cache_queries_total"] += prompt_tokens
        self._waiting.append(sequence)
        self._admit()
        return sequence

    def abort(self, sequence: Sequence) -> bool:
        """Forget a request that nobody waits for; whether it was still there."""
        present = self._remove(sequence)
        if present:
            self._metrics.finished["abort"] += 1
            self._admit()
        return present

    def freeze(self, why: str) -> None:
        """Make no progress until `thaw` was called for every `why`."""
        self._frozen.add(why)

    def thaw(self, why: str) -> None:
        """Go on, if nothing else holds the engine."""
        self._frozen.discard(why)
        self._admit()
        self._schedule()

    def die(self) -> None:
        """Fail every request, and take no more."""
        self._dead = True
        for sequence in [*self._waiting, *self._started, *self._running]:
            self._remove(sequence)
            sequence.wake(error=True)
            self._metrics.finished["error"] += 1

    def abort_all(self) -> int:
        """Fail every request, and go on; how many there were."""
        found = [*self._waiting, *self._started, *self._running]
        for sequence in found:
            self._remove(sequence)
            sequence.wake(error=True)
            self._metrics.finished["abort"] += 1
        return len(found)

    def observe(self) -> None:
        """Bring the gauges up to date."""
        gauges = self._metrics.gauges
        gauges["num_requests_running"] = float(len(self._running) + len(self._started))
        gauges["num_requests_waiting"] = float(len(self._waiting))
        used = sum(one.prompt_tokens + one.produced for one in [*self._running, *self._started])
        gauges["kv_cache_usage_perc"] = min(1.0, used / self._kv_tokens)

    def _admit(self) -> None:
        """Let waiting requests start, as many as may run at once."""
        while self._waiting and len(self._running) + len(self._started) < self._at_once and not self._frozen & HELD:
            sequence = self._waiting.popleft()
            self._metrics.histograms["request_queue_time_seconds"].observe(self._loop.time() - sequence.arrived)
            self._started[sequence] = self._loop.call_later(self._first_token, self._first, sequence)

    def _first(self, sequence: Sequence) -> None:
        """Give a request its first token: it runs from now on."""
        if self._frozen:
            self._started[sequence] = self._loop.call_later(0.05, self._first, sequence)
            return
        del self._started[sequence]
        self._running.add(sequence)
        now = self._loop.time()
        self._metrics.histograms["time_to_first_token_seconds"].observe(now - sequence.arrived)
        self._metrics.histograms["iteration_tokens_total"].observe(sequence.prompt_tokens + 1)
        self._metrics.counters["prompt_tokens_total"] += sequence.prompt_tokens
        self._produce(sequence, now)
        self._schedule()

    def _schedule(self) -> None:
        if self._timer is not None or not self._running or self._frozen:
            return
        if self._per_token > 0:
            self._timer = self._loop.call_later(self._per_token, self._step)
        else:
            self._timer = self._loop.call_soon(self._step)

    def _step(self) -> None:
        """One token for each."""
        self._timer = None
        if self._frozen:
            return
        now = self._loop.time()
        batch = list(self._running)
        self._metrics.histograms["iteration_tokens_total"].observe(len(batch))
        latency = self._metrics.histograms["inter_token_latency_seconds"]
        for sequence in batch:
            latency.observe(now - sequence.last)
            self._produce(sequence, now)
        self._schedule()

    def _produce(self, sequence: Sequence, now: float) -> None:
        sequence.produced += 1
        sequence.last = now
        self._metrics.counters["generation_tokens_total"] += 1
        if sequence.produced >= sequence.limit:
            self._finish(sequence, now)
        sequence.wake()

    def _finish(self, sequence: Sequence, now: float) -> None:
        self._running.discard(sequence)
        self._emptied.set()
        self._metrics.finished[sequence.reason] += 1
        histograms = self._metrics.histograms
        histograms["e2e_request_latency_seconds"].observe(now - sequence.arrived)
        histograms["request_prompt_tokens"].observe(sequence.prompt_tokens)
        histograms["request_generation_tokens"].observe(sequence.produced)
        self._admit()

    def _remove(self, sequence: Sequence) -> bool:
        self._emptied.set()
        timer = self._started.pop(sequence, None)
        if timer is not None:
            timer.cancel()
            return True
        if sequence in self._running:
            self._running.discard(sequence)
            return True
        if sequence in self._waiting:
            self._waiting.remove(sequence)
            return True
        return False
