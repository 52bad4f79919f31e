"""One model as clients see it: its replicas, how many requests they get at a time, who waits, who answers instead.

Rules: a model without replicas, limit and rules costs a request one look at `direct`. With a limit, a place is given
away as soon as a request ends, to whoever's turn it is (see waiting); who has waited too long is told so, and who
leaves frees its place. Which replica gets a request is decided by balance, unless it goes on from what one of them has
stored: then no other will do. Such requests wait apart, for that replica alone, and where somebody waits who takes any,
its places go to both by turns.

Requests for a model none of whose replicas is ready are held while one is on its way or on call (see routes): that one
is wished for, and they wait in the same queues, up to `queue.hold` seconds. Whoever has a fallback that is ready goes
there at once instead, since who names one wants an answer now; the model is wished for all the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from vllm_circus.plan.types import ModelPlan, ProxyPlan
from vllm_circus.proxy.balance import candidates, choose
from vllm_circus.proxy.counters import CLIENT_LEFT
from vllm_circus.proxy.errors import Refused, not_ready
from vllm_circus.proxy.routes import Away
from vllm_circus.proxy.rules import Rules
from vllm_circus.proxy.stored import RESPONSES
from vllm_circus.proxy.waiting import FairQueue, QueueFull

if TYPE_CHECKING:
    from vllm_circus.proxy.backend import Backend
    from vllm_circus.proxy.request import Request
    from vllm_circus.proxy.rewrite import Rewriter

#: Seconds that a client is told to come again after, where too many wait.
_BUSY = 1
_UNREACHABLE = Away("is not reachable", "", _BUSY)


class Group:
    """See the module.

    Attributes:
        name: of the model in the file.
        direct: the backend, where nothing has to be decided about a request; else None.
        refusal: why none of its replicas takes a request, or None.
        fallback: the model that answers while this one takes none, or None.
        has_replicas: it has more than one engine.
        is_watched: it matters here how a request ended.
        wanted: the engine that its requests wish for, while none of them takes any; None where none would come.
    """

    __slots__ = (
        "_apart",
        "_away",
        "_clock",
        "_had_turn",
        "_loop",
        "_opened_at",
        "_queue",
        "_rules",
        "_serving",
        "_turn",
        "_waiting",
        "_wish",
        "backends",
        "direct",
        "fallback",
        "has_replicas",
        "is_watched",
        "name",
        "refusal",
        "wanted",
    )

    def __init__(
        self, name: str, *, loop: asyncio.AbstractEventLoop, clock: Callable[[], float], wish: Callable[[str], None]
    ) -> None:
        """`wish` says that this engine is wanted; it is asked as often as requests come."""
        self.name = name
        self._loop = loop
        self._clock = clock
        self._wish = wish
        self.backends: tuple[Backend, ...] = ()
        self.fallback: Group | None = None
        self.refusal: Refused | None = None
        self.wanted: str | None = None
        self.direct: Backend | None = None
        self._opened_at = 0.0  # when it came to take requests again
        self._queue: FairQueue[Request] = FairQueue(0)  # of those who take any replica
        self._apart: dict[Backend, FairQueue[Request]] = {}  # of those who need this one
        self._waiting = 0  # in all queues
        self._had_turn: set[Backend] = set()  # whose last place went to one who needed it
        self._away: Mapping[str, Away] = {}
        self._turn = 0
        self._serving = False

    def settle(self, plan: ModelPlan, backends: Sequence[Backend], proxy: ProxyPlan) -> list[Request]:
        """Go by this plan from now on, with these engines; returns those who waited for one that is gone.

        What the states say of the engines is told by `update`, which has to follow.
        """
        if self.backends and self.backends[0].counter is not None:
            self.backends[0].counter.waiting = 0  # it is told of the first one
        self.backends = tuple(backends)
        self.has_replicas = len(self.backends) > 1
        self._rules = Rules(plan, proxy)
        self.is_watched = self._rules.limit is not None or self.has_replicas
        self._had_turn &= set(self.backends)
        before, self._apart = self._apart, {}
        for backend in self.backends:
            self._apart[backend] = before.pop(backend) if backend in before else FairQueue(0)
        for queue in (self._queue, *self._apart.values()):
            queue.size = self._rules.size
        lost = [exchange for queue in before.values() for exchange in queue.take_out(lambda _: True)]
        self._tell()
        return lost

    def sift(self, belongs: Callable[[Group, Request], bool]) -> list[Request]:
        """Let those wait no longer who do not belong here, and return them."""
        queues = (self._queue, *self._apart.values())
        lost = [exchange for queue in queues for exchange in queue.take_out(lambda it: not belongs(self, it))]
        self._tell()
        return lost

    def __repr__(self) -> str:
        return f"<Group {self.name} of {len(self.backends)}, {self._waiting} waiting>"

    def update(self, refusal: Refused | None, away: Mapping[str, Away] | None = None) -> None:
        """The states have changed: `refusal` says why no replica takes a request; None says that one does.

        `away` are the engines that take none, by name.
        """
        if self.refusal is not None and refusal is None:
            self._opened_at = self._clock()
        self.refusal = refusal
        self._away = away or {}
        self.wanted = None if refusal is None else self._hope()
        plain = refusal is None and self.fallback is None and not self.is_watched
        plain = plain and self._rules.changes_nothing and all(map(self.knows, self._rules.names))
        self.direct = self.backends[0] if plain else None
        self._serve_soon()

    def rewriter_for(self, path: bytes) -> Rewriter | None:
        """What is changed in requests for this path, or None for nothing."""
        return self._rules.rewriter_for(path)

    def needs_whole(self, path: bytes, model: str | None) -> bool:
        """Whether a request for this path has to be here whole before it goes on, be it to the fallback."""
        if path == RESPONSES and self.has_replicas:  # what it goes on from may stand at its end
            return True
        groups = (self,) if self.fallback is None else (self, self.fallback)
        return any(it.rewriter_for(path) is not None or not it.knows(model) for it in groups)

    def knows(self, model: str | None) -> bool:
        """Whether all of its engines answer to that name; the proxy writes the model's own where one does not."""
        return all(backend.knows(model) for backend in self.backends)

    def stand_in(self, exchange: Request) -> Group | None:
        """Who answers this request while no replica does: nobody where it asks for what only these have."""
        return None if exchange.model in self._rules.adapters or exchange.maker is not None else self.fallback

    def place(self, exchange: Request) -> Backend | None:
        """The replica that takes this request; None where it waits for one. Raises Refused."""
        if exchange.maker is not None:
            return self._place_at(exchange.maker, exchange)
        if self.refusal is not None:
            self._wait_for_engine(self.refusal, exchange)
            return None
        free = known = self._free(self._clock())
        if self._waiting:  # what somebody needs is given by turns
            free = [] if self._queue else [backend for backend in free if not self._apart.get(backend)]
        if free:
            return self._chosen(free, exchange)
        if known:  # time alone brought it back: those who wait have not heard of it
            self._serve_soon()
        self._wait(self._queue, exchange)
        return None

    def _place_at(self, backend: Backend, exchange: Request) -> Backend | None:
        """The replica that has what this request needs; None where it waits for that. Raises Refused."""
        absence = self._absence(backend)
        queue = self._apart[backend]
        if absence is not None:
            if self._comes(backend):
                self._wish(backend.name)
            if not (self._rules.hold and self._comes(backend)):
                raise absence
        elif not exchange.generates or (not queue and self._has_room(backend)):
            return backend
        elif self._has_room(backend):
            self._serve_soon()
        self._wait(queue, exchange)
        return None

    def _wait_for_engine(self, refusal: Refused, exchange: Request) -> None:
        """Wish for one of its engines, and let it wait for that. Raises Refused where it is not to wait."""
        if self.wanted is not None:
            self._wish(self.wanted)
        if not self._holds or self._has_stand_in(exchange):
            raise refusal.again()
        self._wait(self._queue, exchange)

    @property
    def _holds(self) -> bool:
        """Whether requests wait while none of its engines takes any."""
        return self.wanted is not None and self._rules.hold > 0

    def _hope(self) -> str | None:
        """The engine to be wished for: one is enough. None where none would come."""
        hopes = {name: self._away[name].hope for backend in self.backends if (name := backend.name) in self._away}
        best = max(hopes, key=hopes.__getitem__, default=None)
        return best if best is not None and hopes[best] else None

    def _comes(self, backend: Backend) -> bool:
        """Whether requests may wait for this one, which is not ready."""
        away = self._away.get(backend.name)
        return away is not None and away.hope > 0

    def _has_stand_in(self, exchange: Request) -> bool:
        """Whether another model answers this request now."""
        other = None if exchange.moved else self.stand_in(exchange)
        return other is not None and other.refusal is None

    def wishes(self) -> list[str]:
        """The engines that somebody waits for who has to be started or woken up first."""
        found = [backend.name for backend, queue in self._apart.items() if queue and self._comes(backend)]
        return [*found, self.wanted] if self.wanted is not None and self._queue else found

    @property
    def comments(self) -> float | None:
        """Seconds between two comments that a waiting stream is sent; None sends none."""
        return self._rules.comments

    def look_after(self, exchange: Request, since: float) -> None:
        """Called now and then for each that waits: whether it has waited for too long; it began to at `since`."""
        maker = exchange.maker
        absence = self.refusal if maker is None else self._absence(maker)
        if absence is not None:
            due, error = since + self._rules.hold, absence.again()
        else:
            due = max(since, self._opened_at) + self._rules.timeout
            error = Refused(503, "queue_timeout", "No engine had time for the request.", retry_after=_BUSY)
        if self._clock() >= due:
            self.leave(exchange)
            exchange.refused_place(self, error)

    def _absence(self, backend: Backend) -> Refused | None:
        """Why this replica takes no request that no other can have; None where it does."""
        away = None
        if not backend.is_ready or backend.is_down(self._clock()):
            away = self._away.get(backend.name, _UNREACHABLE)
        if away is None:
            return None
        words = f"has that response at a replica that {away.words}" if self.has_replicas else away.words
        return not_ready(self.name, words, away.reason, away.retry_after)

    def _has_room(self, backend: Backend) -> bool:
        return self._rules.limit is None or backend.load < self._rules.limit

    def _wait(self, queue: FairQueue[Request], exchange: Request) -> None:
        """Let it wait, and tell who gives up its place for it. Raises Refused where none is to be had."""
        try:
            loser = queue.put(exchange.sender, exchange)
        except QueueFull:
            raise self._full() from None
        self._tell()
        if loser is not None:
            loser.refused_place(self, self._full())

    def _full(self) -> Refused:
        words = f"Too many requests for `{self.name}` are waiting."
        retry_after = _BUSY if self.refusal is None else self.refusal.retry_after
        return Refused(429, "queue_full", words, param="model", retry_after=retry_after)

    def leave(self, exchange: Request) -> None:
        """It waits no longer."""
        queue = self._queue if exchange.maker is None else self._apart[exchange.maker]
        queue.remove(exchange.sender, exchange)
        self._tell()

    def done(self, backend: Backend, *, status: int, cut: bool, trial: bool) -> None:
        """A request is over that `place` had given to this replica; `trial` is what `is_trial` said then.

        The status is `CLIENT_LEFT` where the client is why nothing is known of the replica.
        """
        if self.has_replicas:
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
        """Replicas that may have one request more now. Raises Refused where none takes any."""
        if self.refusal is not None:
            raise self.refusal.again()
        known = [backend for backend in self.backends if not backend.is_down(now)]
        able = candidates(known, now)
        if not able:
            raise not_ready(self.name, "is not reachable", "", _BUSY)
        limit = self._rules.limit
        if limit is None:
            return able
        free = [backend for backend in able if backend.load < limit]
        if not free and len(able) == 1:  # the one to be tried is still full of earlier ones
            others = candidates([backend for backend in known if backend is not able[0]], now)
            free = [backend for backend in others if backend.load < limit]
        return free

    def _chosen(self, free: Sequence[Backend], exchange: Request) -> Backend:
        self._turn += 1
        backend = choose(free, turn=self._turn, key=self._rules.key(exchange) if len(free) > 1 else None)
        exchange.is_trial = backend.ejector.marked and backend.ejector.try_(self._clock())
        return backend

    def _serve_soon(self) -> None:
        """Give free places away in a turn of its own: what a request's end leads to never nests."""
        if self._waiting and not self._serving:
            self._serving = True
            self._loop.call_soon(self._serve)

    def _serve(self) -> None:
        self._serving = False
        for backend, queue in self._apart.items():
            absence = self._absence(backend) if queue else None
            if absence is not None and not (self._rules.hold and self._comes(backend)):
                self._refuse_all(queue, absence)
        if self._holds and self._queue and self.fallback is not None:
            self._let_go_elsewhere(self.fallback)
        try:
            while self._waiting and (given := self._next()) is not None:
                exchange, backend = given
                self._tell()
                exchange.placed(self, backend)
        except Refused as error:
            self._refuse_all(self._queue, error)

    def _next(self) -> tuple[Request, Backend] | None:
        """Who gets which place now; None where nobody can. Raises Refused where none is left for who takes any."""
        needed = [it for it, queue in self._apart.items() if queue and it.is_ready and self._has_room(it)]
        turn = next((backend for backend in needed if backend not in self._had_turn), None)
        if self._queue and turn is None:
            free = self._free(self._clock()) if not self._holds else ()
            exchange = self._queue.pop() if free else None
            if exchange is not None:
                chosen = self._chosen(free, exchange)
                self._had_turn.discard(chosen)
                return exchange, chosen
        for backend in needed if turn is None else [turn]:
            exchange = self._apart[backend].pop()
            if exchange is not None:
                self._had_turn.add(backend)
                return exchange, backend
        return None

    def _let_go_elsewhere(self, fallback: Group) -> None:
        """Nobody waits here whom that one can answer."""
        if self.refusal is None or fallback.refusal is not None:
            return
        moving = self._queue.take_out(self._has_stand_in)
        self._tell()
        for exchange in moving:
            exchange.refused_place(self, self.refusal.again())

    def _refuse_all(self, queue: FairQueue[Request], error: Refused) -> None:
        """Nobody will take them: each is told, or moved to the model that answers instead."""
        while (exchange := queue.pop()) is not None:
            self._tell()
            exchange.refused_place(self, error.again())

    def _tell(self) -> None:
        self._waiting = len(self._queue) + sum(map(len, self._apart.values()))
        counter = self.backends[0].counter
        if counter is not None:
            counter.waiting = self._waiting
