"""A model's replicas, limit and queue as one machine: the counts are right, and nobody is forgotten."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.proxy.conftest import a_model, a_plan, a_proxy
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
from vllm_circus.proxy.routes import STALE, Away

LIMIT, SIZE = 2, 5


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


@dataclass(eq=False)
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

    def knows(self, model: str | None) -> bool:
        return model == "chat"

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
    maker: Replica | None = None
    generates: bool = True
    moved: bool = False

    def placed(self, group: Group, backend: Any) -> None:
        del group
        assert self.at is None
        assert self.maker in {None, backend}
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
        self.wished: list[str] = []
        self.hopes = [0, 0, 0]
        self.replicas = [Replica(f"chat-{number}", self.clock) for number in (1, 2, 3)]
        loop = cast("asyncio.AbstractEventLoop", self.loop)
        self.group = Group("chat", loop=loop, clock=self.clock, wish=self.wished.append)
        plan = replicas(1, max_in_flight=LIMIT, queue=Queue(size=SIZE))[0]
        self.group.settle(plan, cast("Any", self.replicas), a_proxy())
        self.group.update(None)
        self.waiting: list[Asking] = []
        self.served: list[Asking] = []

    def turn(self) -> None:
        self.loop.turn()
        for asking in self.waiting[:]:
            if asking.at is not None:
                self.served.append(asking)
            if asking.at is not None or asking.refused is not None:
                self.waiting.remove(asking)

    @rule(sender=st.sampled_from([b"a", b"b", b"c"]), needs=st.none() | st.integers(0, 2))
    def come(self, sender: bytes, needs: int | None = None) -> None:
        """`needs` is which replica alone will do."""
        asking = Asking(sender, maker=None if needs is None else self.replicas[needs])
        del self.wished[:]
        beside = [other for other in self.waiting if other.maker is asking.maker]
        shares = Counter(other.sender for other in beside)
        try:
            backend = self.group.place(cast("Any", asking))
        except Refused as error:
            may_wait = self.holds() if needs is None else bool(self.hopes[needs])
            assert not may_wait or error.code == "queue_full", "for want of places only"  # noqa: PT017 - not always
            is_full = error.http_status == 429
            assert is_full == (error.code == "queue_full")  # noqa: PT017 - both ways are right
            assert not is_full or (len(beside) == SIZE and max(shares.values()) <= shares[sender] + 1)
            return
        for other in self.waiting[:]:
            if other.refused is not None:
                assert (other.refused.code, other.refused.retry_after) == ("queue_full", 5 if self.holds() else 1)
                assert len(beside) == SIZE
                assert other in beside
                assert shares[other.sender] > shares[sender] + 1
                self.waiting.remove(other)
        if backend is None:
            self.waiting.append(asking)
            assert needs is not None or self.wished == self.best()
        else:
            asking.placed(self.group, cast("Any", backend))
            self.served.append(asking)
        self.turn()
        needed = {other.maker for other in self.waiting}
        assert not (None in needed and self.room()), "nobody waits where there is room"
        assert not needed & set(self.able()), "who needs this one waits for no other"

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

    @rule(hopes=st.lists(st.sampled_from([0, 1, 3, None]), min_size=3, max_size=3))
    def states(self, hopes: list[int | None]) -> None:
        """None is ready; else how much hope there is."""
        self.hopes = [hope or 0 for hope in hopes]
        for replica, hope in zip(self.replicas, hopes, strict=True):
            replica.is_ready = hope is None
        named = zip(self.replicas, hopes, strict=True)
        away = {replica.name: Away("is loading", "", 5, hope=hope) for replica, hope in named if hope is not None}
        self.group.update(None if None in hopes else not_ready("chat", "is loading", "", 5), away)
        self.turn()
        if len(away) == len(hopes) and not self.holds():
            assert all(asking.maker is not None for asking in self.waiting), "nobody waits for what does not come"
        assert all(asking.maker.is_ready or self.hope_for(asking.maker) for asking in self.waiting if asking.maker)

    def hope_for(self, replica: Replica) -> int:
        return self.hopes[self.replicas.index(replica)]

    def holds(self) -> bool:
        """Whether no replica is ready, and one will be."""
        return any(self.hopes) and not any(replica.is_ready for replica in self.replicas)

    def best(self) -> list[str]:
        """The replica that is wished for: the first of those there is most hope for."""
        return [self.replicas[self.hopes.index(max(self.hopes))].name] if self.holds() else []

    @rule(seconds=st.sampled_from([0.5, 2.0, 20.0]))
    def time(self, seconds: float) -> None:
        self.clock.now += seconds

    @invariant()
    def none_has_more_than_it_may(self) -> None:
        assert all(0 <= replica.load <= LIMIT for replica in self.replicas)

    @invariant()
    def who_waits_is_counted(self) -> None:
        assert self.replicas[0].counter.waiting == len(self.waiting)
        assert max(Counter(asking.maker for asking in self.waiting).values(), default=0) <= SIZE

    def able(self) -> list[Replica]:
        """Replicas that could have one more."""
        now = self.clock.now
        return [one for one in self.replicas if one.is_ready and not one.is_down(now) and one.load < LIMIT]

    def room(self) -> list[Replica]:
        """Those for requests that take any: one that is out is not among them."""
        return [one for one in self.able() if not one.ejector.marked]

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
