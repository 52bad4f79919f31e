"""A model's replicas, limit and queue as one machine: the counts are right, and nobody is forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.proxy.conftest import a_model, a_plan
from tests.proxy.engines import replicas
from vllm_circus.bus.messages import ModelsMessage, ModelState
from vllm_circus.config.models import Ejection, Queue
from vllm_circus.lifecycle.states import State
from vllm_circus.plan.types import Endpoint
from vllm_circus.proxy.balance import Ejector, Standing, seed_of
from vllm_circus.proxy.counters import CLIENT_LEFT, ModelCounter
from vllm_circus.proxy.errors import Refused, not_ready
from vllm_circus.proxy.group import Group
from vllm_circus.proxy.keys import Keys
from vllm_circus.proxy.relay import Relay
from vllm_circus.proxy.routes import STALE

LIMIT, SIZE = 2, 3


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


class Loop:
    """Calls what is to be called soon when the test says so."""

    def __init__(self) -> None:
        self._soon: list[Callable[[], object]] = []

    def call_soon(self, call: Callable[[], object]) -> None:
        self._soon.append(call)

    def turn(self) -> None:
        while self._soon:
            self._soon.pop(0)()


@dataclass
class Replica:
    """As much of a backend as a group sees."""

    name: str
    clock: Clock
    is_ready: bool = True
    down_until: float = 0.0
    counter: ModelCounter = field(default_factory=ModelCounter)
    ejector: Ejector = field(default_factory=lambda: Ejector(Ejection(failures=2, seconds=5)))

    @property
    def load(self) -> int:
        return self.counter.in_flight

    @property
    def seed(self) -> int:
        return seed_of(self.name)

    def is_down(self, now: float) -> bool:
        return now < self.down_until


@dataclass(eq=False)
class Asking:
    """As much of a request as a group sees."""

    sender: bytes
    at: Replica | None = None
    refused: Refused | None = None
    is_trial: bool = False
    model: str = "chat"
    maker: None = None

    def placed(self, group: Group, backend: Any) -> None:
        del group
        assert self.at is None
        self.at = backend
        backend.counter.in_flight += 1

    def refused_place(self, group: Group, error: Refused) -> None:
        del group
        self.refused = error


class Machine(RuleBasedStateMachine):
    """Requests come, wait, leave, end well and ill; replicas come, go, and cannot be reached."""

    def __init__(self) -> None:
        super().__init__()
        self.clock, self.loop = Clock(), Loop()
        self.replicas = [Replica(f"chat-{number}", self.clock) for number in (1, 2, 3)]
        self.group = Group(
            replicas(1, max_in_flight=LIMIT, queue=Queue(size=SIZE))[0],
            cast("Any", self.replicas),
            loop=cast("asyncio.AbstractEventLoop", self.loop),
            clock=self.clock,
            workers=1,
            exact_usage=False,
        )
        self.waiting: list[Asking] = []
        self.served: list[Asking] = []

    def turn(self) -> None:
        self.loop.turn()
        for asking in self.waiting[:]:
            if asking.at is not None:
                self.served.append(asking)
            if asking.at is not None or asking.refused is not None:
                self.waiting.remove(asking)

    @rule(sender=st.sampled_from([b"a", b"b"]))
    def come(self, sender: bytes) -> None:
        asking = Asking(sender)
        try:
            backend = self.group.place(cast("Any", asking))
        except Refused as error:
            is_full = error.http_status == 429
            assert is_full == (error.code == "queue_full")  # noqa: PT017 - both ways are right
            assert len(self.waiting) == SIZE or not is_full
            return
        if backend is None:
            self.waiting.append(asking)
        else:
            asking.placed(self.group, backend)
            self.served.append(asking)
        self.turn()
        assert not (self.waiting and self.room()), "nobody waits where there is room"

    @precondition(lambda self: self.waiting)
    @rule(pick=st.integers(0, 99))
    def leave(self, pick: int) -> None:
        self.group.leave(cast("Any", self.waiting.pop(pick % len(self.waiting))))
        self.turn()

    @precondition(lambda self: self.served)
    @rule(pick=st.integers(0, 99), status=st.sampled_from([200, 404, 500, CLIENT_LEFT]), cut=st.booleans())
    def end(self, pick: int, status: int, cut: bool) -> None:
        self.over(self.served.pop(pick % len(self.served)), status, cut=cut)
        self.turn()

    @precondition(lambda self: self.served)
    @rule(pick=st.integers(0, 99))
    def find_nobody(self, pick: int) -> None:
        asking = self.served.pop(pick % len(self.served))
        assert asking.at is not None
        asking.at.down_until = self.clock.now + 1
        self.over(asking, 503)
        self.turn()

    def over(self, asking: Asking, status: int, *, cut: bool = False) -> None:
        assert asking.at is not None
        asking.at.counter.in_flight -= 1
        self.group.done(cast("Any", asking.at), status=status, cut=cut, trial=asking.is_trial)

    @rule(ready=st.lists(st.booleans(), min_size=3, max_size=3))
    def states(self, ready: list[bool]) -> None:
        for replica, is_ready in zip(self.replicas, ready, strict=True):
            replica.is_ready = is_ready
        self.group.update(None if any(ready) else not_ready("chat", "is loading", "", 5))
        self.turn()

    @rule(seconds=st.sampled_from([0.5, 2.0, 20.0]))
    def time(self, seconds: float) -> None:
        self.clock.now += seconds

    @invariant()
    def none_has_more_than_it_may(self) -> None:
        assert all(0 <= replica.load <= LIMIT for replica in self.replicas)

    @invariant()
    def who_waits_is_counted(self) -> None:
        assert self.replicas[0].counter.waiting == len(self.waiting) <= SIZE

    def room(self) -> list[Replica]:
        """Replicas that could have one more: one that is out is not among them."""
        return [
            replica
            for replica in self.replicas
            if replica.is_ready and not replica.is_down(self.clock.now) and replica.load < LIMIT
            if not replica.ejector.marked
        ]

    def teardown(self) -> None:
        """Everything ends, and every replica can be tried again: no claim is left."""
        while self.waiting:
            self.leave(0)
        while self.served:
            self.over(self.served.pop(), CLIENT_LEFT)
        self.turn()
        assert [replica.load for replica in self.replicas] == [0, 0, 0]
        assert self.replicas[0].counter.waiting == 0
        self.clock.now += 1000
        assert all(replica.ejector.state(self.clock.now) is not Standing.OUT for replica in self.replicas)


TestGroup = Machine.TestCase
TestGroup.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_whoever_comes_next_finds_out_that_there_is_room_again() -> None:
    machine = Machine()
    for replica in machine.replicas[1:]:
        replica.down_until = machine.clock.now + 1
    for _ in range(LIMIT + 1):
        machine.come(b"a")
    assert len(machine.waiting) == 1
    machine.time(2.0)
    machine.come(b"a")
    assert machine.waiting == []
    machine.teardown()


def test_states_that_are_too_old_make_every_replica_count() -> None:
    """The health plugin is dead: who was loading then may be ready long since, and what is asked finds out."""

    async def run() -> None:
        clock = Clock()
        plan = a_plan(Path("/x"), *replicas(1, 2), a_model("other", 3))
        loop = asyncio.get_running_loop()
        relay = Relay(plan, Keys(()), loop=loop, control=Endpoint("localhost", 0, "/x"), clock=clock)
        loading = ModelState("chat-1", State.LOADING), ModelState("chat-2", State.READY)
        relay.take_models(ModelsMessage(0.0, 1, 1, loading))
        assert [relay.backends[name].is_ready for name in ("chat-1", "chat-2", "other")] == [False, True, True]
        clock.now += STALE + 1
        relay.sweep()
        assert all(backend.is_ready for backend in relay.backends.values())
        relay.take_models(ModelsMessage(0.0, 1, 1, loading))
        assert not relay.backends["chat-1"].is_ready
        relay.close()

    asyncio.run(run())
