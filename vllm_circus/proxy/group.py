"""One model as clients see it: its replicas, how many requests they get at a time, who waits, who answers instead.

Rules: a model without replicas, limit and rules costs a request one look at `direct`. With a limit, a place is given
away as soon as a request ends, to whoever's turn it is (see waiting); who has waited too long is told so, and who
leaves frees its place. Which replica gets a request is decided by balance.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from vllm_circus.plan.types import PREFIX, ModelPlan
from vllm_circus.proxy.balance import PREFIX as PREFIX_BYTES
from vllm_circus.proxy.balance import SEARCHED, affinity_key, candidates, choose, prefix_key
from vllm_circus.proxy.counters import CLIENT_LEFT
from vllm_circus.proxy.errors import Refused, not_ready
from vllm_circus.proxy.rewrite import Rewriter
from vllm_circus.proxy.waiting import FairQueue, QueueFull

if TYPE_CHECKING:
    from vllm_circus.proxy.backend import Backend
    from vllm_circus.proxy.request import Request

#: Seconds that a client is told to come again after, where too many wait.
_BUSY = 1
#: Paths whose streams end with an event that tells the usage, if that is asked for.
_WITH_USAGE = frozenset({b"/v1/chat/completions", b"/v1/completions"})
#: Paths whose bodies are edited: those that generate.
_REWRITTEN = _WITH_USAGE | {b"/v1/chat/completions/batch", b"/v1/responses", b"/v1/messages", b"/invocations"}


class Group:
    """See the module.

    Attributes:
        name: of the model in the file.
        direct: the backend, where nothing has to be decided about a request; else None.
        refusal: why none of its replicas takes a request, or None.
        fallback: the model that answers while this one takes none, or None.
        is_watched: it matters here how a request ended.
        queue_timeout: seconds that a request may wait.
    """

    __slots__ = (
        "_adapters",
        "_affinity",
        "_clock",
        "_limit",
        "_loop",
        "_queue",
        "_rewriter",
        "_serving",
        "_turn",
        "_usage_rewriter",
        "backends",
        "direct",
        "fallback",
        "is_watched",
        "name",
        "queue_timeout",
        "refusal",
    )

    def __init__(
        self,
        plan: ModelPlan,
        backends: Sequence[Backend],
        *,
        loop: asyncio.AbstractEventLoop,
        clock: Callable[[], float],
        workers: int,
        exact_usage: bool,
    ) -> None:
        self.name = plan.group
        self.backends = tuple(backends)
        self.fallback: Group | None = None
        self._rewriter = Rewriter(plan.request, include_usage=False)
        self._usage_rewriter = Rewriter(plan.request, include_usage=exact_usage)
        self.refusal: Refused | None = None
        self.queue_timeout = plan.queue.timeout
        self._loop = loop
        self._clock = clock
        self._limit = None if plan.max_in_flight is None else max(1, plan.max_in_flight // workers)
        self._queue: FairQueue[Request] = FairQueue(plan.queue.size)
        self._affinity = plan.affinity
        self._adapters = frozenset(adapter.name for adapter in plan.adapters)
        self._turn = 0
        self._serving = False
        self.is_watched = self._limit is not None or len(self.backends) > 1
        self.direct: Backend | None = None
        self.update(None)

    def __repr__(self) -> str:
        return f"<Group {self.name} of {len(self.backends)}, {len(self._queue)} waiting>"

    def update(self, refusal: Refused | None) -> None:
        """The states have changed: `refusal` says why no replica takes a request; None says that one does."""
        self.refusal = refusal
        plain = refusal is None and self.fallback is None and not self.is_watched
        plain = plain and self._usage_rewriter.changes_nothing
        self.direct = self.backends[0] if plain else None
        self._serve_soon()

    def rewriter_for(self, path: bytes) -> Rewriter | None:
        """What is changed in requests for this path, or None for nothing."""
        rewriter = self._usage_rewriter if path in _WITH_USAGE else self._rewriter
        return None if rewriter.changes_nothing or path not in _REWRITTEN else rewriter

    def needs_whole(self, path: bytes) -> bool:
        """Whether a request for this path has to be here whole before it goes on, be it to the fallback."""
        if self.fallback is not None and self.fallback.rewriter_for(path) is not None:
            return True
        return self.rewriter_for(path) is not None

    def stand_in(self, exchange: Request) -> Group | None:
        """Who answers this request while no replica does: nobody where it asks for what only these have."""
        return None if exchange.model in self._adapters or exchange.maker is not None else self.fallback

    def place(self, exchange: Request) -> Backend | None:
        """The replica that takes this request; None where it waits for one. Raises Refused."""
        if self.refusal is not None:
            raise self.refusal.again()
        if exchange.maker is not None:
            return self._maker(exchange.maker)
        free = self._free(self._clock())
        if free and not self._queue:
            return self._chosen(free, exchange)
        if free:  # time alone brought it back: those who wait have not heard of it
            self._serve_soon()
        try:
            self._queue.put(exchange.sender, exchange)
        except QueueFull:
            words = f"Too many requests for `{self.name}` are waiting."
            raise Refused(429, "queue_full", words, param="model", retry_after=_BUSY) from None
        self._tell()
        return None

    def leave(self, exchange: Request) -> None:
        """It waits no longer."""
        self._queue.remove(exchange.sender, exchange)
        self._tell()

    def done(self, backend: Backend, *, status: int, cut: bool, trial: bool) -> None:
        """A request is over that `place` had given to this replica; `trial` is what `is_trial` said then.

        The status is `CLIENT_LEFT` where the client is why nothing is known of the replica.
        """
        if len(self.backends) > 1:
            ejector = backend.ejector
            if status == CLIENT_LEFT:
                if trial:
                    ejector.abandoned()
            elif cut or status >= 500:
                ejector.failed(self._clock(), refused=backend.is_down(self._clock()), trial=trial)
            else:
                ejector.succeeded()
        self._serve_soon()

    def _free(self, now: float) -> Sequence[Backend]:
        """Replicas that may have one request more now. Raises Refused where none can be reached."""
        known = [backend for backend in self.backends if not backend.is_down(now)]
        able = candidates(known, now)
        if not able:
            raise not_ready(self.name, "is not reachable", "", _BUSY)
        limit = self._limit
        if limit is None:
            return able
        free = [backend for backend in able if backend.load < limit]
        if not free and len(able) == 1:  # the one to be tried is still full of earlier ones
            others = candidates([backend for backend in known if backend is not able[0]], now)
            free = [backend for backend in others if backend.load < limit]
        return free

    def _maker(self, backend: Backend) -> Backend:
        """The replica that made what is asked for, and none else. Raises Refused."""
        if not backend.is_ready or backend.is_down(self._clock()):
            raise not_ready(self.name, "cannot reach what it has stored", "", _BUSY)
        return backend

    def _chosen(self, free: Sequence[Backend], exchange: Request) -> Backend:
        self._turn += 1
        backend = choose(free, turn=self._turn, key=self._key(exchange) if len(free) > 1 else None)
        exchange.is_trial = backend.ejector.marked and backend.ejector.try_(self._clock())
        return backend

    def _key(self, exchange: Request) -> int | None:
        if self._affinity is None:
            return None
        if self._affinity == PREFIX:
            return prefix_key(exchange.beginning(SEARCHED + PREFIX_BYTES))
        return affinity_key(exchange.header(self._affinity.encode()))

    def _serve_soon(self) -> None:
        """Give free places away in a turn of its own: what a request's end leads to never nests."""
        if self._queue and not self._serving:
            self._serving = True
            self._loop.call_soon(self._serve)

    def _serve(self) -> None:
        self._serving = False
        while self._queue:
            try:
                if self.refusal is not None:
                    raise self.refusal.again()
                free = self._free(self._clock())
            except Refused as error:
                self._refuse_all(error)
                return
            if not free:
                return
            exchange = self._queue.pop()
            self._tell()
            if exchange is not None:
                exchange.placed(self, self._chosen(free, exchange))

    def _refuse_all(self, error: Refused) -> None:
        """Nobody will take them: each is told, or moved to the model that answers instead."""
        while (exchange := self._queue.pop()) is not None:
            self._tell()
            exchange.refused_place(self, error.again())

    def _tell(self) -> None:
        counter = self.backends[0].counter
        if counter is not None:
            counter.waiting = len(self._queue)
