"""What all connections of one worker share: routes, backends, counters, limits.

Rules: the table of routes is replaced whole, on the loop, so a request sees one table. Whoever is counted as in
flight was routed by the table whose sequence the counters carry; so who drains a model can trust both together. What
follows from a new plan for engines and models is the fleet's; all else that a plan says is taken over here.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs

from vllm_circus.bus.messages import ModelsMessage
from vllm_circus.lifecycle.states import State
from vllm_circus.logline import clean
from vllm_circus.plan.types import Endpoint, Plan
from vllm_circus.proxy.allow import stored_id
from vllm_circus.proxy.backend import Backend
from vllm_circus.proxy.cors import Cors
from vllm_circus.proxy.counters import Counters
from vllm_circus.proxy.descriptors import Descriptors
from vllm_circus.proxy.errors import Refused, out_of_files, unknown_response, unsure_response
from vllm_circus.proxy.fleet import Fleet
from vllm_circus.proxy.group import Group
from vllm_circus.proxy.head import usable_request_id
from vllm_circus.proxy.keys import Keys
from vllm_circus.proxy.poller import Poller
from vllm_circus.proxy.reception import Reception
from vllm_circus.proxy.routes import SOON, STALE, Away, Table
from vllm_circus.proxy.stored import Makers, NoWord, find_maker, previous_response

if TYPE_CHECKING:
    from vllm_circus.proxy.downstream import Downstream
    from vllm_circus.proxy.exchange import Exchange
    from vllm_circus.proxy.request import Request

log = logging.getLogger(__name__)

#: Bytes of request bodies that one worker holds at most.
MOST_HELD: Final = 1 << 30
#: Request ids are made so many at a time.
_IDS_AT_ONCE: Final = 256


class Relay:
    """The data plane of one worker.

    Attributes:
        clock: seconds, monotonic; not the loop's, which stands still while a turn lasts.
        response_timeout: of the limits, kept where compiled code finds it at once.
        draining: the worker is to end: answers close their connections.
        models: the last snapshot of the states, and `models_at` when it came.
        on_finished: told of each finished exchange, for the request log; None where there is none.
        on_wish: told of each request that wishes for an engine which is at rest or on its way, by the engine's name.
        descriptors: the files that connections use.
        poller: its connections without TLS, on both sides.
        groups, backends: the fleet's, the same objects for ever.
    """

    def __init__(
        self,
        plan: Plan,
        keys: Keys,
        *,
        loop: asyncio.AbstractEventLoop,
        control: Endpoint,
        clock: Callable[[], float] = time.monotonic,
        files: int = sys.maxsize,
    ) -> None:
        """`files` is how many may be open for connections."""
        self.plan = plan
        self.keys = keys
        self.loop = loop
        self.poller = Poller(loop)
        self.clock = clock
        self.limits = plan.proxy.limits
        self.response_timeout = self.limits.response_timeout
        self.cors = Cors(plan.proxy.cors)
        self.counters = Counters((model.name for model in plan.models), os.getpid())
        self.draining = False
        self.models: ModelsMessage | None = None
        self.models_at = 0.0
        self.on_finished: Callable[[Exchange, bool], None] | None = None
        self.on_wish: Callable[[str], None] | None = None
        self.connections: set[Downstream] = set()
        self.descriptors = Descriptors(self.connections, clock=clock, most=files)
        self._believed = True
        self._held = 0
        self._makers = Makers()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ids: list[bytes] = []
        self.reception = Reception(keys, self.cors, self.limits)
        timeout, files_used = self.limits.connect_timeout, self.descriptors
        self.control = Backend(
            "control", control, poller=self.poller, clock=clock, connect_timeout=timeout, descriptors=files_used
        )
        self.fleet = Fleet(
            plan,
            self.control,
            poller=self.poller,
            clock=clock,
            counters=self.counters,
            descriptors=files_used,
            wish=self._wish,
        )
        self.groups, self.backends = self.fleet.groups, self.fleet.backends

    @property
    def table(self) -> Table:
        """The latest routes."""
        return self.fleet.table

    # what connections ask for

    def joined(self, down: Downstream) -> None:
        """A client came."""
        self.connections.add(down)
        self.descriptors.came(down)

    def left(self, down: Downstream) -> None:
        """A client's connection ended."""
        self.connections.discard(down)
        self.descriptors.on_change()

    @property
    def has_room(self) -> bool:
        """Whether so little waits here that uploads may go on which nobody needs yet."""
        return self._held < MOST_HELD // 4

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
        return group if group is not None else self.fleet.family(self.table.find(exchange.model).group)

    def remember(self, exchange: Exchange, data: bytes) -> None:
        """Note which engine made a stored response."""
        if exchange.backend_name:
            self._makers.note(data, exchange.backend_name)

    def find_maker(self, exchange: Request) -> Callable[[], object] | None:
        """Ask who made the stored response that is asked for; returns what gives it up, None where nobody need ask.

        Raises Refused where there are no files for the connections that it takes.
        """
        stored = stored_id(exchange.head.path)
        if stored is None or self._makers.get(stored) is not None:
            return None
        name = _named_in_query(exchange)
        named = self.groups.get(name) if name is not None else None  # the default model is nobody's word for it
        backends = named.backends if named is not None else tuple(self.backends.values())
        return self._ask(exchange, stored, backends, unknown_response(stored)) if len(backends) > 1 else None

    def find_previous(self, exchange: Request, group: Group) -> Callable[[], object] | None:
        """Ask which replica made the response that this request, all of it here, goes on from.

        Returns and raises like `find_maker`; Refused also where the request names none that there can be.
        """
        stored = previous_response(exchange.whole())
        if stored is None:
            return None
        name = self._makers.get(stored)
        if name is None:
            return self._ask(exchange, stored, group.backends, None)
        exchange.maker = next((backend for backend in group.backends if backend.name == name), None)
        return None

    def _ask(
        self, exchange: Request, stored: str, backends: Sequence[Backend], unknown: Refused | None
    ) -> Callable[[], object]:
        """Ask those who are ready; returns what gives it up. `unknown` is for where nobody has it. Raises Refused."""
        ready = [backend for backend in backends if backend.is_ready]
        if not self.descriptors.take(len(ready)):
            raise out_of_files()
        away = {name: one for backend in backends if (one := self.table.away.get(name := backend.name)) is not None}
        silent = {name: one for name, one in away.items() if not one.is_ended}
        task = self.loop.create_task(self._ask_for_maker(exchange, stored, ready, silent, unknown))
        self._tasks.add(task)
        task.add_done_callback(partial(self._asked, len(ready)))
        return task.cancel

    def _asked(self, files: int, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self.descriptors.give(files)

    async def _ask_for_maker(
        self,
        exchange: Request,
        stored: str,
        ready: Sequence[Backend],
        silent: Mapping[str, Away],
        unknown: Refused | None,
    ) -> None:
        """`silent` are those who cannot be asked now, and may have it."""
        maker = None
        times = [one.retry_after for one in silent.values()]
        try:
            maker = await find_maker(stored, ready)
        except NoWord:
            times.append(SOON)
        if maker is not None:
            self._makers.set(stored, maker.name)
            exchange.maker_found(maker, None)
        else:
            for name, one in silent.items() if unknown is None else ():  # else it may be any model's
                if one.hope:
                    self._wish(name)
            param = "previous_response_id" if unknown is None else "response_id"
            exchange.maker_found(None, unsure_response(stored, param, min(times)) if times else unknown)

    def _wish(self, engine: str) -> None:
        if self.on_wish is not None:
            self.on_wish(engine)

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
        self.fleet.take_models(message, believed=True)
        if changed:
            for state in message.models:
                if state.state is State.READY and state.name in self.backends:
                    self.backends[state.name].mark_up()
        return changed

    def take_plan(self, plan: Plan, keys: Keys, message: ModelsMessage | None = None) -> None:
        """Go by this plan and these keys from now on; what is under way ends as it began.

        `message` has the states of the new models as well; without one, those that were told last count.
        """
        self.plan, self.keys = plan, keys
        self.limits = plan.proxy.limits
        self.response_timeout = self.limits.response_timeout
        self.cors = Cors(plan.proxy.cors)
        self.reception = Reception(keys, self.cors, self.limits)
        for down in self.connections:
            down.forget()
        self.fleet.take_plan(plan, message or self.models, believed=message is not None or self._believed)

    def sweep(self) -> None:
        """Called a few times a second: time limits, idle connections, states that are too old."""
        now = self.clock()
        for down in tuple(self.connections):
            down.check(now)
        for backend in self.descriptors.backends:
            backend.expire(now)
        self.descriptors.look_again()
        if self._believed and self.models is not None and now - self.models_at > STALE:
            log.warning("no word from the health plugin for %.0f s: every model is tried", STALE)
            self._believed = False
            self.fleet.take_models(self.models, believed=False)

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
        self.fleet.close()
        for task in tuple(self._tasks):
            task.cancel()
        self.poller.close()


def _named_in_query(exchange: Request) -> str | None:
    named = parse_qs(exchange.head.query.decode("ascii")).get("model")
    return named[-1] if named else None


def log_line(exchange: Exchange, *, cut: bool, now: float) -> str:
    """The request log's line: names cleaned, never a body. Times in milliseconds, `-` where there was no first byte.

    `engine` is who was asked, a replica or a fallback's engine too; `-` where nobody was. `in` and `out` are bytes of
    bodies, of the request's as far as it has come.
    """
    head = exchange.head
    first = f"{(exchange.first_at - exchange.began) * 1000:.1f}" if exchange.first_at else "-"
    model = clean(exchange.model or "-")
    return (  # what tells most comes first: terminals cut lines off
        f"request status={exchange.status} model={model} engine={exchange.backend_name or '-'}"
        f" first_ms={first} total_ms={(now - exchange.began) * 1000:.1f}"
        f" method={head.method.decode() or '-'} path={clean(head.path.decode('latin-1')) or '-'}"
        f" in={exchange.request_bytes} out={exchange.response_bytes}"
        f" client={exchange.down.peer.decode()} id={exchange.request_id.decode()}{' cut' if cut else ''}"
    )
