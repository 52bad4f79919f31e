"""Waiting in turn: bounded, fair, nothing lost and nothing left behind."""

from __future__ import annotations

import gc
import sys
from collections import Counter
from collections.abc import Callable
from types import FrameType

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from vllm_circus.proxy.waiting import FairQueue, QueueFull

CLIENTS = st.sampled_from([b"a", b"b", b"c", b"d"])


def drained(queue: FairQueue[str]) -> list[str]:
    given = []
    while (item := queue.pop()) is not None:
        given.append(item)
    return given


def filled(*items: str, size: int = 100) -> FairQueue[str]:
    """A queue of items whose first letter is their client."""
    queue: FairQueue[str] = FairQueue(size)
    for item in items:
        queue.put(item[:1].encode(), item)
    return queue


def test_clients_take_turns_and_each_is_served_in_its_order() -> None:
    queue = filled("a1", "a2", "a3", "b1", "c1", "c2")
    assert drained(queue) == ["a1", "b1", "c1", "a2", "c2", "a3"]
    assert queue.pop() is None


def test_a_newcomer_is_served_before_the_second_turn_of_those_who_ask_for_much() -> None:
    queue = filled("a1", "a2", "a3")
    assert queue.pop() == "a1"
    queue.put(b"b", "b1")
    assert drained(queue) == ["a2", "b1", "a3"]


def test_one_more_than_may_wait_is_refused_and_changes_nothing() -> None:
    queue = filled("a1", "b1", size=2)
    with pytest.raises(QueueFull):
        queue.put(b"c", "c1")
    assert drained(queue) == ["a1", "b1"]


def test_who_fills_the_queue_makes_room_for_who_has_nothing_in_it() -> None:
    queue = filled("a1", "a2", "a3", size=3)
    assert queue.put(b"b", "b1") == "a3", "the newest of the one with the most"
    assert drained(queue) == ["a1", "b1", "a2"]


def test_places_move_until_the_shares_are_equal_and_no_further() -> None:
    queue = filled("a1", "a2", "a3", "a4", size=4)
    assert [queue.put(b"b", "b1"), queue.put(b"b", "b2")] == ["a4", "a3"]
    for client in (b"a", b"b"):
        with pytest.raises(QueueFull):
            queue.put(client, "one more")
    assert queue.put(b"c", "c1") == "b2"
    with pytest.raises(QueueFull):
        queue.put(b"c", "c2")
    assert drained(queue) == ["a1", "b1", "c1", "a2"]


def test_who_has_the_most_never_takes_a_place_from_others() -> None:
    queue = filled("b1", "b2", "a1", "a2", "a3", size=5)
    with pytest.raises(QueueFull):
        queue.put(b"a", "a4")
    assert sorted(drained(queue)) == ["a1", "a2", "a3", "b1", "b2"]


def test_a_queue_of_no_size_lets_none_wait() -> None:
    with pytest.raises(QueueFull):
        FairQueue[str](0).put(b"a", "a1")


def test_who_leaves_frees_its_place_at_once() -> None:
    queue = filled("a1", "a2", size=2)
    assert queue.remove(b"a", "a1")
    queue.put(b"b", "b1")
    assert not queue.remove(b"a", "a1")
    assert not queue.remove(b"c", "a2")
    assert drained(queue) == ["a2", "b1"]


def test_leaving_and_coming_back_does_not_gain_a_turn() -> None:
    queue = filled("a1", "b1", "c1")
    queue.remove(b"a", "a1")
    queue.put(b"a", "a2")
    assert drained(queue) == ["b1", "c1", "a2"]


def test_the_same_item_cannot_wait_twice() -> None:
    queue = filled("a1")
    with pytest.raises(ValueError, match="already"):
        queue.put(b"a", "a1")
    assert len(queue) == 1


def test_it_says_what_it_holds() -> None:
    assert repr(filled("a1", "a2", "b1")) == "<FairQueue 3 of 100 from 2 clients>"


class Waiting(RuleBasedStateMachine):
    """Every item put is given once or was taken away; between two turns of a client all who wait had one."""

    SIZE = 6

    def __init__(self) -> None:
        super().__init__()
        self.queue: FairQueue[int] = FairQueue(self.SIZE)
        self.waiting: dict[bytes, list[int]] = {}
        self.number = 0
        #: For each client the others that have waited since its last turn without one of their own.
        self.owed: dict[bytes, set[bytes]] = {}

    def forget(self, client: bytes) -> None:
        """It waits for nothing more: nobody owes it a turn."""
        if not self.waiting[client]:
            del self.waiting[client]
            for others in self.owed.values():
                others.discard(client)

    @rule(client=CLIENTS)
    def put(self, client: bytes) -> None:
        self.number += 1
        shares = Counter({name: len(items) for name, items in self.waiting.items()})
        most = max(shares.values(), default=0)
        is_full = shares.total() == self.SIZE
        if is_full and most <= shares[client] + 1:
            with pytest.raises(QueueFull):
                self.queue.put(client, self.number)
            return
        loser = self.queue.put(client, self.number)
        self.waiting.setdefault(client, []).append(self.number)
        assert (loser is not None) == is_full, "nobody loses a place while there is room"
        if loser is None:
            return
        [name] = [name for name, items in self.waiting.items() if loser in items]
        assert shares[name] == most > shares[client] + 1, "only who has the most makes room, for who has less"
        assert self.waiting[name].pop() == loser, "its newest one goes"

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        client = data.draw(st.sampled_from(sorted(self.waiting)))
        item = data.draw(st.sampled_from(self.waiting[client]))
        assert self.queue.remove(client, item)
        assert not self.queue.remove(client, item)
        self.waiting[client].remove(item)
        self.forget(client)

    @rule(parity=st.integers(0, 1))
    def take_out(self, parity: int) -> None:
        going = {item for items in self.waiting.values() for item in items if item % 2 == parity}
        assert set(self.queue.take_out(lambda item: item % 2 == parity)) == going
        for client, items in list(self.waiting.items()):
            self.waiting[client] = [item for item in items if item not in going]
            self.forget(client)

    @rule()
    def pop(self) -> None:
        item = self.queue.pop()
        if item is None:
            assert not self.waiting
            return
        [client] = [name for name, items in self.waiting.items() if item in items]
        assert self.waiting[client][0] == item, "first come, first served within one client"
        assert not self.owed.get(client), "others waited all the time since its last turn and had none"
        self.waiting[client].pop(0)
        self.forget(client)
        for others in self.owed.values():
            others.discard(client)
        self.owed[client] = set(self.waiting) - {client}

    @invariant()
    def its_length_is_what_waits(self) -> None:
        assert len(self.queue) == sum(map(len, self.waiting.values())) <= self.SIZE

    @invariant()
    def nothing_is_kept_of_who_waits_for_nothing(self) -> None:
        assert set(self.queue._clients) == set(self.waiting)
        assert {client: list(items) for client, items in self.queue._clients.items()} == self.waiting

    @invariant()
    def shares_are_known(self) -> None:
        shares: dict[int, set[bytes]] = {}
        for client, items in self.waiting.items():
            shares.setdefault(len(items), set()).add(client)
        assert {share: set(clients) for share, clients in self.queue._shares.items()} == shares


Waiting.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
test_any_order_of_coming_leaving_and_turns = Waiting.TestCase


# how long it takes


class Traced(bytes):
    """A client whose every look-up in a table is a call of Python, and counted."""

    __slots__ = ()

    def __hash__(self) -> int:
        return bytes.__hash__(self)

    def __eq__(self, other: object) -> bool:
        return bytes.__eq__(self, other)


def steps(call: Callable[[], object]) -> int:
    """Lines and calls of Python until this returns or raises QueueFull."""
    count = 0

    def count_one(frame: FrameType, event: str, arg: object) -> object:
        del frame, event, arg
        nonlocal count
        count += 1
        return count_one

    before = sys.gettrace()
    gc.disable()  # what others have the collector call is no step of ours
    sys.settrace(count_one)  # type: ignore[arg-type]  # it returns itself, which no type can say
    try:
        call()
    except QueueFull:
        pass
    finally:
        gc.enable()
        sys.settrace(before)
    return count


#: Of the longest operation, a put for which another gives up its place: 75 here, the same for 10 items and 10,000.
MOST_STEPS = 100


@pytest.mark.parametrize("size", [10, 10_000])
@pytest.mark.parametrize("clients", [1, 4, 10_000])
def test_no_step_takes_longer_the_more_there_are_who_wait(size: int, clients: int) -> None:
    queue: FairQueue[int] = FairQueue(size)
    names = [Traced(b"%d" % number) for number in range(min(clients, size))]
    for number in range(size):
        queue.put(names[number % len(names)], number)
    newcomer, first, last = Traced(b"new"), names[0], names[-1]
    taken = [
        steps(lambda: queue.put(newcomer, -1)),
        steps(lambda: queue.put(first, -2)),
        steps(lambda: queue.put(newcomer, -3)),
        steps(lambda: queue.remove(first, 0)),
        steps(lambda: queue.remove(last, 0)),
        *(steps(queue.pop) for _ in range(size)),
    ]
    assert queue.pop() is None
    assert 0 < max(taken) <= MOST_STEPS
