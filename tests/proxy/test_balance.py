"""Choosing among replicas, keys that stay where they were, and leaving alone who fails."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from vllm_circus.config.models import Ejection
from vllm_circus.proxy.balance import (
    BUSY_MARGIN,
    BUSY_SHARE,
    PREFIX,
    SEARCHED,
    Ejector,
    Standing,
    affinity_key,
    candidates,
    choose,
    prefix_key,
    seed_of,
)

RULES = Ejection(failures=3, seconds=10, max_seconds=60)


@dataclass
class A:
    """A replica."""

    name: str
    load: int = 0
    is_ready: bool = True
    ejector: Ejector = field(default_factory=lambda: Ejector(RULES))

    @property
    def seed(self) -> int:
        return seed_of(self.name)


def some(*loads: int) -> list[A]:
    return [A(f"m-{number}", load) for number, load in enumerate(loads, 1)]


def out(replica: A, now: float = 0.0) -> A:
    replica.ejector.failed(now, refused=True)
    return replica


# choosing


def test_the_one_with_the_fewest_requests_is_chosen() -> None:
    replicas = some(3, 1, 2)
    assert {choose(replicas, turn=turn).name for turn in range(9)} == {"m-2"}


def test_equals_take_turns() -> None:
    replicas = some(0, 5, 0, 0)
    assert [choose(replicas, turn=turn).name for turn in range(4)] == ["m-1", "m-3", "m-4", "m-1"]


def test_a_key_stays_with_its_replica_whatever_the_turn_and_the_order() -> None:
    replicas = some(0, 1, 2, 3)
    for key in range(50):
        chosen = {choose(replicas, turn=turn, key=key).name for turn in range(4)}
        assert chosen == {choose(replicas[::-1], turn=0, key=key).name}


@pytest.mark.parametrize("size", [2, 3, 4, 8])
def test_keys_are_spread_evenly(size: int) -> None:
    replicas = some(*[0] * size)
    share = Counter(choose(replicas, turn=0, key=affinity_key(b"session-%d" % n)).name for n in range(4000))
    assert len(share) == size
    assert max(share.values()) < 1.15 * 4000 / size
    assert min(share.values()) > 0.85 * 4000 / size


def test_only_the_keys_of_a_replica_that_goes_move() -> None:
    replicas = some(0, 0, 0, 0, 0)
    for key in map(affinity_key, (b"%d" % n for n in range(500))):
        before = choose(replicas, turn=0, key=key)
        after = choose([replica for replica in replicas if replica.name != "m-3"], turn=0, key=key)
        assert after is before or before.name == "m-3"


@given(st.lists(st.integers(0, 30), min_size=2, max_size=6), st.integers(0, 2**32 - 1))
def test_a_key_gives_way_only_where_its_replica_has_much_more_to_do(loads: list[int], key: int) -> None:
    replicas = some(*loads)
    order: list[A] = []
    for replica in replicas:
        replica.load = 0
    while len(order) < len(replicas):
        order.append(choose([replica for replica in replicas if replica not in order], turn=0, key=key))
    for replica, load in zip(replicas, loads, strict=True):
        replica.load = load
    most = BUSY_SHARE * min(loads) + BUSY_MARGIN
    assert choose(replicas, turn=0, key=key) is next(replica for replica in order if replica.load <= most)


# keys


def test_a_header_that_is_missing_or_empty_gives_no_key() -> None:
    assert affinity_key(None) is affinity_key(b"") is None
    assert affinity_key(b"a") != affinity_key(b"b")


def test_keys_and_seeds_are_the_same_in_every_process() -> None:
    code = "import vllm_circus.proxy.balance as b; print(b.affinity_key(b'x'), b.prefix_key(b'x'), b.seed_of('m'))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert said == [str(affinity_key(b"x")), str(prefix_key(b"x")), str(seed_of("m"))]


@pytest.mark.parametrize("name", [b"messages", b"prompt", b"input"])
def test_what_stands_before_the_prompt_does_not_matter(name: bytes) -> None:
    prompt = b'"' + b"Once upon a time " * 30
    keys = {
        prefix_key(before + b'"' + name + b'"' + colon + prompt + after)
        for before in (b"{", b'{"model":"a","max_tokens":5,', b'{"model": "\xc3\xa9\\"messages\\":", "n" :1 ,\n')
        for colon in (b":", b" :\r\n\t ")
        for after in (b'"}', b'","model":"b"}')
    }
    assert len(keys) == 1
    assert keys != {prefix_key(b'{"' + name + b'":"Twice ' + prompt)}


def test_a_string_that_only_reads_like_a_key_is_passed_over() -> None:
    assert prefix_key(b'{"user":"messages","messages":[1]}') == prefix_key(b'{"messages":[1]}')


def test_a_body_without_a_prompt_counts_itself() -> None:
    assert prefix_key(b'{"query":"a"}') != prefix_key(b'{"query":"b"}')
    assert prefix_key(b"") is None


def test_only_the_beginning_of_the_prompt_counts_and_only_so_much_is_searched() -> None:
    prompt = b"x" * PREFIX
    assert prefix_key(b'{"prompt":' + prompt + b"1") == prefix_key(b'{"prompt":' + prompt + b"2")
    far = b'{"tools":"' + b"t" * SEARCHED + b'","messages":'
    assert prefix_key(far + b"1") == prefix_key(far + b"2")


@pytest.mark.parametrize("unit", [b'"messages"', b'"messages":', b'"input"   ', b" ", b'"'])
def test_no_body_takes_long_to_be_searched(unit: bytes) -> None:
    body = unit * (1 << 20)
    began = time.perf_counter()
    prefix_key(body)
    assert time.perf_counter() - began < 0.5


# leaving alone


def test_failures_in_a_row_take_a_replica_out_and_one_success_between_does_not() -> None:
    ejector = Ejector(RULES)
    for now in range(2):
        ejector.failed(now, refused=False)
    ejector.succeeded()
    for now in range(2):
        ejector.failed(now, refused=False)
    assert ejector.state(2) is Standing.IN
    ejector.failed(2, refused=False)
    assert ejector.state(2) is Standing.OUT
    assert repr(ejector) == "<Ejector out for 10 s>"


def test_a_refused_connection_takes_it_out_at_once() -> None:
    ejector = Ejector(RULES)
    ejector.failed(0, refused=True)
    assert ejector.state(9.9) is Standing.OUT
    assert ejector.state(10) is Standing.TRIAL


def test_one_request_tries_it_and_its_failures_double_the_time_up_to_the_longest() -> None:
    ejector = Ejector(RULES)
    ejector.failed(0, refused=True)
    now, pauses = 10.0, []
    for _ in range(4):
        assert ejector.try_(now)
        assert not ejector.try_(now)
        assert ejector.state(now) is Standing.OUT
        ejector.failed(now, refused=False, trial=True)
        began = now
        while not ejector.try_(now):
            now += 1
        ejector.abandoned()
        pauses.append(now - began)
    assert pauses == [20, 40, 60, 60]


def test_a_trial_that_succeeds_brings_it_back_and_all_is_forgotten() -> None:
    ejector = Ejector(RULES)
    ejector.failed(0, refused=True)
    ejector.try_(10)
    ejector.failed(10, refused=True, trial=True)
    ejector.try_(30)
    ejector.succeeded()
    assert not ejector.marked
    assert repr(ejector) == "<Ejector in, 0 failures in a row>"
    ejector.failed(31, refused=True)
    assert ejector.state(41) is Standing.TRIAL


def test_a_trial_whose_client_left_is_free_for_another() -> None:
    ejector = Ejector(RULES)
    ejector.failed(0, refused=True)
    assert ejector.try_(10)
    assert repr(ejector) == "<Ejector out for 10 s, being tried>"
    ejector.abandoned()
    assert ejector.try_(10)


def test_failures_of_requests_that_were_sent_before_do_not_lengthen_the_time() -> None:
    ejector = Ejector(RULES)
    ejector.failed(0, refused=True)
    for now in range(1, 10):
        ejector.failed(now, refused=True)
    assert ejector.try_(10)
    ejector.failed(10, refused=True)
    assert not ejector.try_(10), "the trial still runs"


def test_those_who_are_out_get_nothing_and_a_due_trial_comes_first() -> None:
    replicas = some(0, 0, 0)
    out(replicas[0], now=0)
    assert [it.name for it in candidates(replicas, 5)] == ["m-2", "m-3"]
    assert [it.name for it in candidates(replicas, 10)] == ["m-1"]
    assert replicas[0].ejector.try_(10)
    assert [it.name for it in candidates(replicas, 10)] == ["m-2", "m-3"]


def test_the_last_ones_that_are_ready_are_never_left_alone() -> None:
    replicas = [out(A("m-1")), out(A("m-2")), A("m-3", is_ready=False)]
    assert [it.name for it in candidates(replicas, 5)] == ["m-1", "m-2"]
    replicas[1].ejector.succeeded()
    assert [it.name for it in candidates(replicas, 5)] == ["m-2"]


def test_who_is_not_ready_gets_no_trial() -> None:
    replicas = [out(A("m-1", is_ready=False)), A("m-2")]
    assert [it.name for it in candidates(replicas, 100)] == ["m-2"]
    assert not candidates([A("m-1", is_ready=False)], 0)


class Ejecting(RuleBasedStateMachine):
    """The ejector against a list of what happened."""

    def __init__(self) -> None:
        super().__init__()
        self.ejector = Ejector(RULES)
        self.now = 0.0
        self.row = 0
        self.trials = 0  # that failed
        self.out_since: float | None = None
        self.trying = False

    @property
    def expected(self) -> Standing:
        if self.out_since is None:
            return Standing.IN
        pause = min(RULES.seconds * 2**self.trials, RULES.max_seconds)
        return Standing.OUT if self.trying or self.now < self.out_since + pause else Standing.TRIAL

    @rule(seconds=st.sampled_from([0.5, 3.0, 10.0, 60.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def success(self) -> None:
        self.ejector.succeeded()
        self.row, self.trials, self.out_since, self.trying = 0, 0, None, False

    @rule(refused=st.booleans())
    def failure(self, refused: bool) -> None:
        self.ejector.failed(self.now, refused=refused)
        self.row += 1
        if self.out_since is None and (refused or self.row >= RULES.failures):
            self.out_since = self.now

    @rule()
    def claim(self) -> None:
        claimed = self.ejector.try_(self.now)
        assert claimed == (self.expected is Standing.TRIAL)
        self.trying = self.trying or claimed

    @rule(refused=st.booleans())
    def failure_of_the_trial(self, refused: bool) -> None:
        if self.trying:
            self.ejector.failed(self.now, refused=refused, trial=True)
            self.trying, self.out_since, self.trials = False, self.now, self.trials + 1

    @rule()
    def leave(self) -> None:
        if self.trying:
            self.ejector.abandoned()
            self.trying = False

    @invariant()
    def it_stands_where_it_should(self) -> None:
        assert self.ejector.state(self.now) is self.expected
        assert self.ejector.marked or self.expected is Standing.IN


Ejecting.TestCase.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
test_any_course_of_events = Ejecting.TestCase
