"""One request: collected, routed and sent; the first half of an exchange.

    begin ─▶ receive … ─▶ dispatch ─▶ placed ─▶ connected ─▶ sent
      └─────────┴────────────┴──────────┴──────────┴─ fail

Rules:
- The body is held until it is whole or, when it is large, until it names its model; so an engine's connection is
  taken late and a slow upload holds none. Held bytes are bounded for the worker. While it waits in a queue, more of it
  is taken as long as there is room: so it is seen who leaves, or stops, and has no place there any more.
- A request is sent a second time only if it had gone out whole on a used connection that was reset before any byte
  of an answer (so nobody had read it), or if it is a GET; never a third time. Who could not be connected to has read
  nothing: another replica is asked.
- Most requests are small and come whole: `take_whole` does in a straight line what the other methods do step by step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Final

from vllm_circus.proxy.allow import CONTROL, STORED, Where
from vllm_circus.proxy.counters import CLIENT_LEFT, ModelCounter
from vllm_circus.proxy.errors import Refused, not_ready, unknown_path
from vllm_circus.proxy.glance import SMALL
from vllm_circus.proxy.head import engine_head, forwarded
from vllm_circus.proxy.incoming import Incoming
from vllm_circus.proxy.intake import Intake, Piece
from vllm_circus.proxy.stored import RESPONSES

if TYPE_CHECKING:
    from vllm_circus.proxy.backend import Backend
    from vllm_circus.proxy.downstream import Downstream
    from vllm_circus.proxy.early import EarlyStream
    from vllm_circus.proxy.group import Group
    from vllm_circus.proxy.reception import Prepared
    from vllm_circus.proxy.relay import Relay
    from vllm_circus.proxy.upstream import Upstream

#: A body longer than this goes on as soon as its model is known; a shorter one when it is whole.
HOLD: Final = 256 << 10


@dataclass(slots=True)
class Wait:
    """The time in a queue: when it began, and when the next comment is due; None before that was thought about."""

    since: float
    next_comment: float | None = None


class Request(Incoming):
    """See the module.

    Attributes:
        model: the model that it names, once that is known.
        counter: of the engine that it concerns; None where it concerns none.
        waiting: it is in a model's queue; None while it is not.
        moved: another model answers than the one that was named.
        maker: the replica that made the stored response that it needs, where that is known.
        is_trial: whether it is the one that tries an ejected replica.
        early: stands between it and its engine where the client was answered before; else None.
    """

    __slots__ = (
        "_backend",
        "_clock",
        "_deadline",
        "_give_up",
        "_group",
        "_over",
        "_tries",
        "_upstream",
        "asks_tunnel",
        "counter",
        "early",
        "is_trial",
        "maker",
        "model",
        "moved",
        "waiting",
    )

    def __init__(
        self, relay: Relay, down: Downstream, prepared: Prepared, length: int | None, request_id: bytes
    ) -> None:
        Incoming.__init__(self, relay, down, prepared, length, request_id)
        self._clock = relay.clock
        self.model: str | None = None
        self.counter: ModelCounter | None = None
        self._group: Group | None = None
        self._backend: Backend | None = None
        self._upstream: Upstream | None = None
        self._give_up: Callable[[], object] | None = None
        self._tries = 0  # replicas of the present model that could not be connected to
        self.maker: Backend | None = None
        self.early: EarlyStream | None = None
        self.waiting: Wait | None = None
        self._over = self.asks_tunnel = self.is_trial = self.moved = False
        self._deadline = inf

    def fail(self, error: Refused) -> None:
        """Answer it ourselves."""
        raise NotImplementedError

    @property
    def backend_name(self) -> str:
        """The engine it went to, or empty."""
        return self._backend.name if self._backend is not None else ""

    @property
    def generates(self) -> bool:
        """Whether an engine has to work for it, rather than look up what it has stored."""
        page = self.prepared.page
        return page is None or page.where is not STORED

    # the request comes

    def take_whole(self, body: Piece, model: str) -> None:
        """The request is here, whole and plain, and names this model."""
        self.complete = True
        self.model = model
        self.request_bytes = size = len(body)
        self._pieces = (body,)
        try:
            if size > SMALL:
                self._hold(size)
            self._dispatch()
        except Refused as error:
            self.fail(error)

    def begin(self) -> None:
        """The head has come. Raises Refused."""
        prepared = self.prepared
        if prepared.refusal is not None:
            raise prepared.refusal.again()
        page = prepared.page
        if page is None:
            raise unknown_path()
        self.asks_tunnel = page.where is Where.TUNNEL and self.head.upgrade == b"websocket"
        self.intake = Intake(self.head, self.length, page, self._relay.limits.max_body_bytes)
        if self.complete:
            self._body_came(self.intake)

    def receive(self, data: bytes, at: int) -> int:
        """A piece of the body has come: index after its end, or MORE. Raises Refused where no end can be found."""
        intake = self.intake
        assert intake is not None  # noqa: S101 - begin() made it
        before = intake.held
        try:
            end = intake.feed(data, at)
        finally:  # what it holds is given back when the request is over, also where it was refused
            if self._upstream is None:
                self._hold(intake.held - before)
        self.complete = intake.complete
        self.request_bytes = intake.total
        try:
            self._body_came(intake)
        except Refused as error:
            self.fail(error)
        return end

    def _body_came(self, intake: Intake) -> None:
        """Do what can be done with the body so far. Raises Refused."""
        if intake.error is not None:
            raise intake.error
        if self._upstream is not None:
            self._upstream.write_all(self._release())
            if intake.complete:
                self._await_answer()
        elif self._backend is not None or self.waiting:  # being connected to, or queued
            if not (intake.complete or (self.waiting and self._relay.has_room)):  # else who leaves is to be seen
                self.down.pause_reading()
        elif intake.complete or (intake.held > HOLD and intake.model is not None and not self._is_rewritten(intake)):
            self.model = intake.model
            self._dispatch()

    # where it goes

    def _dispatch(self) -> None:
        """Find its backend. Raises Refused."""
        page = self.prepared.page
        if page is not None and page.where is CONTROL:
            self._go(self._relay.control)
            return
        if page is not None and page.where is STORED:
            self._give_up = self._relay.find_maker(self)
            if self._give_up is not None:
                return
        self._group = group = self._relay.find_group(self)
        backend = group.direct
        if backend is not None:
            self._go(backend)
        elif not (group.has_replicas and self.head.path == RESPONSES and self._seeks_previous(group)):
            self._place(group)

    def _seeks_previous(self, group: Group) -> bool:
        """Whether the replica has to be found first that has the response which this goes on from. Raises Refused."""
        self.counter = group.backends[0].counter
        self._give_up = self._relay.find_previous(self, group)
        return self._give_up is not None

    def maker_found(self, maker: Backend | None, error: Refused | None) -> None:
        """It is known now who made the stored response, or that nobody did."""
        self._give_up = None
        if self._over:
            return
        group = self._group
        try:
            if error is not None:
                raise error
            if group is None:
                self._dispatch()
            else:
                self.maker = maker
                self._place(group)
        except Refused as refused:
            self.fail(refused)

    def _place(self, group: Group) -> None:
        """Ask for one of its replicas, or for its fallback's. Raises Refused."""
        self._group = group
        self.counter = group.backends[0].counter
        try:
            backend = group.place(self)
        except Refused as error:
            self._fall_back(group, error)
            return
        if backend is None:
            self.waiting = Wait(self._clock())
        else:
            self._take_place(group, backend)

    def _fall_back(self, group: Group, error: Refused) -> None:
        """No replica takes it: let the model that stands in for theirs. Raises Refused, this error if there is none."""
        other = None if self.moved or error.http_status != 503 else group.stand_in(self)
        if other is None:
            raise error
        self.moved = True
        self._tries = 0
        self._place(other)

    def _take_place(self, group: Group, backend: Backend) -> None:
        """Go to the replica that was chosen. Raises Refused."""
        try:
            self._rewrite(group.rewriter_for(self.head.path), None if backend.knows(self.model) else group.name)
            self._go(backend)
        except Refused:
            if self.is_trial:  # it tries nothing
                self.is_trial = False
                backend.ejector.abandoned()
            raise

    def placed(self, group: Group, backend: Backend) -> None:
        """It has waited, and its turn has come."""
        self.waiting = None
        try:
            self._take_place(group, backend)
        except Refused as error:
            self.fail(error)

    def refused_place(self, group: Group, error: Refused) -> None:
        """It has waited, and nobody will take it: its fallback may."""
        self.waiting = None
        try:
            self._fall_back(group, error)
        except Refused as refused:
            self.fail(refused)

    def find_place_again(self) -> None:
        """It has waited for what a new plan does not have any more: where it goes is found out once more."""
        self.waiting = None
        self.moved = False
        self.maker = None
        self._tries = 0
        try:
            self._place(self._relay.find_group(self))
        except Refused as error:
            self.fail(error)

    def _go(self, backend: Backend) -> None:
        """Send it there. Raises Refused where that cannot be reached just now."""
        self.counter = counter = backend.counter
        upstream = backend.take()
        if upstream is None and backend.is_down(self._clock()):
            raise not_ready(backend.name, "is not reachable", "", 1)
        self._backend = backend
        if counter is not None:
            counter.in_flight += 1
        if upstream is None:
            self._give_up = backend.connect(self)
        else:
            self._send(upstream, backend)

    def connected(self, upstream: Upstream) -> None:
        """The backend was reached."""
        self._give_up = None
        backend = self._backend
        if self._over or backend is None:
            upstream.close()
        elif upstream.is_closing():  # accepted and closed at once: nothing was sent
            self.not_connected()
        else:
            self._send(upstream, backend)

    def not_connected(self, refusal: Refused | None = None) -> None:
        """The backend was not reached: nobody has read anything of the request, so another replica may have it.

        That is so as well where it was sent on a kept connection, which was reset before the engine read it (see
        `lost`). With a refusal it was not even tried, and none is to be.
        """
        self._give_up = None
        backend, group = self._backend, self._group
        if self._over or backend is None:
            return
        if refusal is not None:
            self._unplace(backend, CLIENT_LEFT)
            self.fail(refusal)
            return
        error = not_ready(backend.name if group is None else group.name, "is not reachable", "", 1)
        if group is None:
            self.fail(error)
            return
        self._unplace(backend)
        self._tries += 1
        try:
            if self._tries < len(group.backends):
                self._place(group)
            else:
                self._fall_back(group, error)
        except Refused as error:
            self.fail(error)

    def _unplace(self, backend: Backend, status: int = 503) -> None:
        """It is with that backend no longer; the status says what that one has shown (see Group.done)."""
        self._backend = None
        self._deadline = inf  # which was that backend's
        if backend.counter is not None:
            backend.counter.in_flight -= 1
        if self._group is not None and self._group.is_watched:
            self._group.done(backend, status=status, cut=False, trial=self.is_trial)
            self.is_trial = False

    def let_go(self, upstream: Upstream, *, reusable: bool) -> None:
        """The whole answer has come in one read."""
        self._upstream = None
        if reusable and self._backend is not None:
            self._backend.release(upstream, self._clock())
        else:
            upstream.close()

    # what is sent

    def pause(self) -> None:
        """The client is slow."""
        if self._upstream is not None:
            self._upstream.pause()

    def resume(self) -> None:
        """The client took what was written."""
        if self._upstream is not None:
            self._upstream.resume()

    def _send(self, upstream: Upstream, backend: Backend) -> None:
        down, head = self.down, self.head
        if not self.complete:  # before more is written than the backend takes, which pauses it again
            down.resume_reading()
        start = engine_head(
            head,
            self.length,
            b"Host: %b\r\n" % head.read.get(b"host", b"") if backend.is_control else backend.lines,
            forwarded(head, down.peer, secure=down.secure) if self.prepared.forwards else down.forwarded,
            self.request_id,
            tunnel=self.asks_tunnel,
        )
        # only what goes out whole on a used connection can be sent again, so only that is kept
        pieces = self._held() if upstream.used and self.complete else self._release()
        self._upstream = upstream
        # an Exchange's half, or what stands for one
        upstream.send(self.early or self, head.method, start, pieces)  # type: ignore[arg-type]
        if down.write_paused:
            upstream.pause()
        if self._relay.response_timeout is not None and self.complete:
            self._await_answer()

    def _await_answer(self) -> None:
        """All of it has been sent: the time that the engine has begins."""
        limit = self._relay.response_timeout
        if limit is not None:
            self._deadline = self._clock() + limit

    def _is_rewritten(self, intake: Intake) -> bool:
        """Whether it has to be whole before it goes on."""
        group = self._relay.groups.get(intake.model or "")
        return group is not None and group.needs_whole(self.head.path, intake.model)
