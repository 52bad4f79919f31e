"""What all connections of one worker share: routes, backends, counters, limits.

Rules: the table of routes is replaced whole, on the loop, so a request sees one table. Whoever is counted as in
flight was routed by the table whose sequence the counters carry; so who drains a model can trust both together.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from vllm_circus.bus.messages import ModelsMessage
from vllm_circus.lifecycle.states import State
from vllm_circus.logline import clean
from vllm_circus.plan.types import Endpoint, ModelPlan, Plan
from vllm_circus.proxy.allow import stored_id
from vllm_circus.proxy.backend import Backend
from vllm_circus.proxy.cors import Cors
from vllm_circus.proxy.counters import Counters
from vllm_circus.proxy.errors import Refused, unknown_response
from vllm_circus.proxy.group import Group
from vllm_circus.proxy.head import usable_request_id
from vllm_circus.proxy.keys import Keys
from vllm_circus.proxy.reception import Reception
from vllm_circus.proxy.routes import STALE, Table, make_table
from vllm_circus.proxy.stored import Makers, find_maker

if TYPE_CHECKING:
    from vllm_circus.proxy.downstream import Downstream
    from vllm_circus.proxy.exchange import Exchange
    from vllm_circus.proxy.request import Request

log = logging.getLogger(__name__)

#: Bytes of request bodies that one worker holds at most.
MOST_HELD = 1 << 30
#: Request ids are made so many at a time.
_IDS_AT_ONCE = 256


class Relay:
    """The data plane of one worker.

    Attributes:
        clock: seconds, monotonic; not the loop's, which stands still while a turn lasts.
        draining: the worker is to end: answers close their connections.
        models: the last snapshot of the states, and `models_at` when it came.
        on_finished: told of each finished exchange, for the request log; None where there is none.
        on_crowd: told the number of connections each time that it changes.
    """

    def __init__(
        self,
        plan: Plan,
        keys: Keys,
        *,
        loop: asyncio.AbstractEventLoop,
        control: Endpoint,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.plan = plan
        self.keys = keys
        self.loop = loop
        self.clock = clock
        self.limits = plan.proxy.limits
        self.cors = Cors(plan.proxy.cors)
        self.counters = Counters((model.name for model in plan.models), os.getpid())
        self.draining = False
        self.models: ModelsMessage | None = None
        self.models_at = 0.0
        self.on_finished: Callable[[Exchange, bool], None] | None = None
        self.on_crowd: Callable[[int], None] | None = None
        self.connections: set[Downstream] = set()
        self._believed = True
        self._held = 0
        self._makers = Makers()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ids: list[bytes] = []
        self.reception = Reception(keys, self.cors, self.limits)
        self.table: Table = make_table(plan, None)
        timeout = self.limits.connect_timeout
        self.control = Backend("control", control, loop=loop, clock=clock, connect_timeout=timeout)
        self.backends = {model.name: self._make_backend(model) for model in plan.models}
        self._families = self._make_groups()
        #: Every name that a client may use; None is the default model.
        self.groups: dict[str | None, Group] = {
            name: self._families[route.group] for name, route in self.table.names.items()
        }
        if self.table.default is not None:
            self.groups[None] = self._families[self.table.default.group]

    def _make_backend(self, model: ModelPlan) -> Backend:
        return Backend(
            model.name,
            model.endpoint,
            loop=self.loop,
            clock=self.clock,
            connect_timeout=self.limits.connect_timeout,
            counter=self.counters.models[model.name],
            ejection=model.ejection,
            key_file=self.plan.instance.secrets / f"{model.name}.json" if model.keyed else None,
        )

    def _make_groups(self) -> dict[str, Group]:
        plan = self.plan
        members = plan.replicas()
        groups = {
            name: Group(
                models[0],
                [self.backends[model.name] for model in models],
                loop=self.loop,
                clock=self.clock,
                workers=plan.proxy.workers,
                exact_usage=plan.proxy.exact_usage,
            )
            for name, models in members.items()
        }
        for name, models in members.items():
            if models[0].fallback is not None:
                groups[name].fallback = groups[models[0].fallback]
                groups[name].update(None)
        return groups

    # what connections ask for

    def joined(self, down: Downstream) -> None:
        """A client came."""
        self.connections.add(down)
        if self.on_crowd is not None:
            self.on_crowd(len(self.connections))

    def left(self, down: Downstream) -> None:
        """A client's connection ended."""
        self.connections.discard(down)
        if self.on_crowd is not None:
            self.on_crowd(len(self.connections))

    def hold(self, size: int) -> None:
        """So many more bytes of bodies wait here (or fewer). Raises Refused when there are too many."""
        self._held += size
        if size > 0 and self._held > MOST_HELD:
            raise Refused(503, "overloaded", "Too many large requests wait here.", retry_after=1)

    def request_id(self, given: bytes | None = None) -> bytes:
        """The client's own where it is one that may go on, else 32 hexadecimal digits."""
        usable = usable_request_id(given) if given is not None else None
        if usable is not None:
            return usable
        if not self._ids:
            digits = os.urandom(16 * _IDS_AT_ONCE).hex().encode()
            self._ids = [digits[at : at + 32] for at in range(0, len(digits), 32)]
        return self._ids.pop()

    def find_group(self, exchange: Request) -> Group:
        """Which model answers this request. Raises Refused where nobody is called so."""
        page = exchange.prepared.page
        if page is None or not page.in_body:
            self._look_elsewhere(exchange)
        group = self.groups.get(exchange.model)
        return group if group is not None else self._families[self.table.find(exchange.model).group]

    def remember(self, exchange: Exchange, data: bytes) -> None:
        """Note which engine made a stored response."""
        if exchange.backend_name:
            self._makers.note(data, exchange.backend_name)

    def find_maker(self, exchange: Request) -> Callable[[], object] | None:
        """Ask who made the stored response that is asked for; returns what gives it up, None where nobody need ask."""
        stored = stored_id(exchange.head.path)
        name = _named_in_query(exchange)
        named = self.groups.get(name) if name is not None else None  # the default model is nobody's word for it
        backends = named.backends if named is not None else tuple(self.backends.values())
        if stored is None or self._makers.get(stored) is not None or len(backends) < 2:
            return None
        ready = [backend for backend in backends if backend.is_ready]
        task = self.loop.create_task(self._ask_for_maker(exchange, stored, ready))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task.cancel

    async def _ask_for_maker(self, exchange: Request, stored: str, backends: Sequence[Backend]) -> None:
        maker = await find_maker(b"/v1/responses/" + stored.encode(), backends)
        if maker is not None:
            self._makers.set(stored, maker.name)
        exchange.maker_found(unknown_response(stored) if maker is None else None)

    def finished(self, exchange: Exchange, *, cut: bool) -> None:
        """An exchange is over."""
        if self.on_finished is not None:
            self.on_finished(exchange, cut)

    def _look_elsewhere(self, exchange: Request) -> None:
        """Its model is the one that the query names, or that made the response asked for."""
        made_by = self.plan.model(self._makers.get(stored_id(exchange.head.path) or "") or "")
        named = _named_in_query(exchange)
        exchange.model = named or (made_by.group if made_by is not None else None)
        group = self.groups.get(exchange.model)
        if group is not None and made_by is not None and group.name == made_by.group:
            exchange.maker = self.backends[made_by.name]

    # what the process tells

    def take_models(self, message: ModelsMessage) -> bool:
        """A snapshot of the states has come; True where the routes changed."""
        changed = self.models is None or message.sequence != self.models.sequence or not self._believed
        self.models, self.models_at, self._believed = message, self.clock(), True
        self._take_table(make_table(self.plan, message))
        if changed:
            for state in message.models:
                if state.state is State.READY and state.name in self.backends:
                    self.backends[state.name].mark_up()
        return changed

    def sweep(self) -> None:
        """Called a few times a second: time limits, idle connections, states that are too old."""
        now = self.clock()
        for down in tuple(self.connections):
            down.check(now)
        for backend in (self.control, *self.backends.values()):
            backend.expire(now)
        if self._believed and self.models is not None and now - self.models_at > STALE:
            log.warning("no word from the health plugin for %.0f s: every model is tried", STALE)
            self._believed = False
            self._take_table(make_table(self.plan, self.models, believed=False))

    def _take_table(self, table: Table) -> None:
        """Route by these states from now on."""
        self.table = table
        for name, backend in self.backends.items():
            if name in table.ready and not backend.is_ready:  # what its engine did before counts no longer
                backend.ejector.succeeded()
            backend.is_ready = name in table.ready
        for name, group in self._families.items():
            group.update(table.refusals.get(name))

    def drain(self) -> None:
        """Take no further requests on connections that are idle, and close each after its answer."""
        self.draining = True
        for down in tuple(self.connections):
            down.drain()

    def end(self) -> None:
        """The time for draining is over: tell those who still wait, and cut."""
        for down in tuple(self.connections):
            down.end()

    def close(self) -> None:
        """Close everything at once."""
        for down in tuple(self.connections):
            down.abort()
        for backend in (self.control, *self.backends.values()):
            backend.close()
        for task in tuple(self._tasks):
            task.cancel()


def _named_in_query(exchange: Request) -> str | None:
    named = parse_qs(exchange.head.query.decode("ascii")).get("model")
    return named[-1] if named else None


def log_line(exchange: Exchange, *, cut: bool, now: float) -> str:
    """The request log's line: names cleaned, never a body. Times in milliseconds, `-` where there was no first byte."""
    head = exchange.head
    first = f"{(exchange.first_at - exchange.began) * 1000:.1f}" if exchange.first_at else "-"
    model = clean(exchange.model or "-")
    return (
        f"request id={exchange.request_id.decode()} client={exchange.down.peer.decode()}"
        f" method={head.method.decode() or '-'} path={clean(head.path.decode('latin-1')) or '-'}"
        f" model={model} status={exchange.status} first_ms={first} total_ms={(now - exchange.began) * 1000:.1f}"
        f" in={exchange.request_bytes} out={exchange.response_bytes}{' cut' if cut else ''}"
    )
