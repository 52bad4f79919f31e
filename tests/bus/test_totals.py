from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from vllm_circus.bus.messages import Histogram, ModelCounts, WorkerMessage
from vllm_circus.bus.totals import (
    Totals,
    add_histograms,
    bury,
    dump_totals,
    load_totals,
    model_sums,
    take,
    unrouted_sums,
)

KEPT = 3


class Proxy(RuleBasedStateMachine):
    """Workers that come, count, tell, and die; messages that are lost or late; a stats plugin that is restarted.

    Whatever was told once stays counted, once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.totals = Totals()
        self.living: dict[str, WorkerMessage] = {}
        self.told: dict[str, WorkerMessage] = {}
        self.late: dict[str, WorkerMessage] = {}
        self.born = 0

    @rule(pid=st.integers(1, 4))
    def comes(self, pid: int) -> None:
        """The kernel gives a number out again only when its owner is gone."""
        if all(worker.pid != pid for worker in self.living.values()):
            self.born += 1
            name = f"{pid}-{self.born}"
            self.living[name] = WorkerMessage(name, pid, 0.0, 0, 0, {})

    @rule(
        data=st.data(), model=st.sampled_from("ab"), status=st.sampled_from([200, 404, 500]), flying=st.integers(0, 9)
    )
    def counts(self, data: st.DataObject, model: str, status: int, flying: int) -> None:
        if not self.living:
            return
        name = data.draw(st.sampled_from(sorted(self.living)))
        before = self.living[name].models.get(model, ModelCounts())
        statuses = {**before.statuses, status: before.statuses.get(status, 0) + 1}
        buckets = list(before.duration.counts)
        buckets[status % len(buckets)] += 1
        after = replace(
            before,
            statuses=statuses,
            in_flight=flying,
            chunks=before.chunks + 3,
            duration=Histogram(tuple(buckets), before.duration.total + 0.5),
        )
        self.living[name] = replace(
            self.living[name],
            models={**self.living[name].models, model: after},
            unrouted={404: self.living[name].unrouted.get(404, 0) + 1},
        )

    @rule(data=st.data(), leaving=st.booleans())
    def tells(self, data: st.DataObject, leaving: bool) -> None:
        if self.living:
            name = data.draw(st.sampled_from(sorted(self.living)))
            self.told[name] = replace(self.living[name], leaving=leaving)
            self.totals = take(self.totals, self.told[name], 1.0)
            if leaving:  # these are its last words
                del self.living[name]
                self.totals = bury(self.totals, {name}, kept=KEPT)

    @rule(data=st.data(), on_its_way=st.booleans())
    def dies(self, data: st.DataObject, on_its_way: bool) -> None:
        if self.living:
            name = data.draw(st.sampled_from(sorted(self.living)))
            last = self.living.pop(name)
            if on_its_way and name in self.told:
                self.late[name] = last
            self.totals = bury(self.totals, {name}, kept=KEPT)

    @rule(data=st.data())
    def comes_late(self, data: st.DataObject) -> None:
        kept = sorted(self.late.keys() & self.totals.workers.keys())
        if kept:
            name = data.draw(st.sampled_from(kept))
            self.told[name] = self.late.pop(name)
            self.totals = take(self.totals, replace(self.told[name], leaving=True), 1.0)

    @rule()
    def stats_is_restarted(self) -> None:
        self.totals = load_totals(dump_totals(self.totals))

    @invariant()
    def nothing_is_lost_and_nothing_doubled(self) -> None:
        sums = model_sums(self.totals)
        for model in "ab":
            told = [message.models[model] for message in self.told.values() if model in message.models]
            counted = sums.get(model, ModelCounts())
            assert counted.requests == sum(each.requests for each in told)
            assert counted.chunks == sum(each.chunks for each in told)
            assert counted.duration.count == counted.requests
            assert counted.duration.total == pytest.approx(counted.requests * 0.5)
        assert sum(unrouted_sums(self.totals).values()) == sum(
            sum(message.unrouted.values()) for message in self.told.values()
        )

    @invariant()
    def only_the_living_have_requests_in_flight(self) -> None:
        for model in "ab":
            flying = sum(
                message.models[model].in_flight
                for name, message in self.told.items()
                if name in self.living and not message.leaving and model in message.models
            )
            assert model_sums(self.totals).get(model, ModelCounts()).in_flight == flying

    @invariant()
    def memory_is_bounded(self) -> None:
        assert sum(not worker.alive for worker in self.totals.workers.values()) <= KEPT + len(self.living) + 4


Proxy.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestProxy = Proxy.TestCase


def test_a_successor_with_the_same_pid_buries_its_predecessor() -> None:
    first = WorkerMessage("7-1", 7, 0.0, 0, 0, {"a": ModelCounts(statuses={200: 2}, in_flight=5)})
    second = WorkerMessage("7-2", 7, 0.0, 0, 0, {"a": ModelCounts(statuses={200: 1}, in_flight=1)})
    totals = take(take(Totals(), first, 1.0), second, 2.0)
    assert model_sums(totals)["a"] == ModelCounts(statuses={200: 3}, in_flight=1)
    assert [name for name, worker in totals.workers.items() if worker.alive] == ["7-2"]


def test_last_words_that_come_late_do_not_bury_the_successor() -> None:
    first = WorkerMessage("7-1", 7, 0.0, 0, 0, {"a": ModelCounts(statuses={200: 2}, in_flight=5)})
    second = WorkerMessage("7-2", 7, 0.0, 0, 0, {"a": ModelCounts(statuses={200: 1}, in_flight=1)})
    last = WorkerMessage("7-1", 7, 0.0, 0, 0, {"a": ModelCounts(statuses={200: 4}, in_flight=5)})
    totals = take(take(take(Totals(), first, 1.0), second, 2.0), last, 3.0)
    assert model_sums(totals)["a"] == ModelCounts(statuses={200: 5}, in_flight=1)
    assert [name for name, worker in totals.workers.items() if worker.alive] == ["7-2"]


def test_histograms_of_another_release_do_not_spoil_the_sum() -> None:
    assert add_histograms(Histogram((1, 2), 1.0), Histogram((5,), 9.0)) == Histogram((5,), 9.0)


def test_totals_of_another_form_are_refused() -> None:
    for data in (b"", b"{", b"[]", b'{"version": 99}', b'{"base": {"a": 1}}'):
        with pytest.raises(ValueError, match=r"error|version"):
            load_totals(data)


def test_totals_of_before_there_were_queues_are_read() -> None:
    message = WorkerMessage("7-1", 7, 0.0, 0, 0, {"a": ModelCounts(statuses={200: 2}, streams=1)})
    document = json.loads(dump_totals(take(Totals(), message, 1.0)))
    counts = document["workers"]["7-1"]["message"]["models"]["a"]
    del counts["waiting"], counts["chunk_gap"]
    totals = take(load_totals(json.dumps(document).encode()), replace(message, worker="8-1", pid=8), 2.0)
    assert model_sums(totals)["a"] == ModelCounts(statuses={200: 4}, streams=2)
