from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from plugins.traffic import Traffic
from tests.plans import model_plan
from vllm_circus.bus.messages import CountsMessage, Histogram, ModelCounts
from vllm_circus.lifecycle.events import Answering, Asked, Event, Quiet, Unheard

MODELS = (model_plan("a"), model_plan("m-1", group="m"), model_plan("m-2", group="m"))
GAPS = Histogram((3, 0))


def message(models: Mapping[str, ModelCounts]) -> CountsMessage:
    return CountsMessage(1.0, 1, dict(models), {}, {}, {}, (), ())


def hear(*pictures: Mapping[str, ModelCounts], complete: bool = True) -> dict[str, list[Event]]:
    """What the last of these messages says of each model."""
    traffic = Traffic()
    said: dict[str, list[Event]] = {}
    for models in pictures:
        said = {}
        for name, event in traffic.hear(message(models), MODELS, complete=complete):
            said.setdefault(name, []).append(event)
    return said


def test_a_model_that_nobody_asks_for_is_quiet_and_unheard_while_workers_may_be_missing() -> None:
    assert hear({}) == {"a": [Quiet()], "m-1": [Quiet()], "m-2": [Quiet()]}
    assert hear({}, complete=False)["a"] == [Unheard()]


@pytest.mark.parametrize("complete", [True, False])
def test_requests_in_flight_are_requests_for_that_model_alone(*, complete: bool) -> None:
    said = hear({"m-2": ModelCounts(in_flight=1)}, complete=complete)
    assert said["m-2"] == [Asked()]
    assert said["m-1"] != [Asked()]


def test_requests_that_wait_are_for_every_replica() -> None:
    said = hear({"m-1": ModelCounts(waiting=1)})
    assert said == {"a": [Quiet()], "m-1": [Asked()], "m-2": [Asked()]}


@pytest.mark.parametrize(
    ("before", "after", "events"),
    [
        (ModelCounts({200: 5}), ModelCounts({200: 6}), [Answering(), Asked()]),
        (ModelCounts({200: 5}), ModelCounts({200: 5}), [Quiet()]),
        (ModelCounts({200: 5}), ModelCounts({200: 5, 503: 1}), [Asked()]),
        (ModelCounts(), ModelCounts({499: 1, 429: 7}), [Asked()]),
        (ModelCounts(in_flight=1), ModelCounts(in_flight=1, chunk_gap=GAPS), [Answering(), Asked()]),
        (ModelCounts(in_flight=1, chunk_gap=GAPS), ModelCounts(in_flight=1, chunk_gap=GAPS), [Asked()]),
        (ModelCounts({200: 5}), ModelCounts({200: 2}), [Asked()]),
    ],
    ids=["answered", "nothing new", "an error", "left or refused here", "a stream goes on", "it stands", "counts anew"],
)
def test_what_changed_since_the_last_word_tells(before: ModelCounts, after: ModelCounts, events: list[Event]) -> None:
    assert hear({"a": before}, {"a": after})["a"] == events


def test_what_was_counted_before_the_first_word_is_no_news() -> None:
    assert hear({"a": ModelCounts({200: 5}, chunk_gap=GAPS)})["a"] == [Quiet()]


def test_a_model_is_busy_while_requests_are_in_flight() -> None:
    traffic = Traffic()
    assert not traffic.is_busy("a")
    list(traffic.hear(message({"a": ModelCounts(in_flight=2)}), MODELS, complete=True))
    assert traffic.is_busy("a")
    assert not traffic.is_busy("m-1")
    list(traffic.hear(message({"a": replace(ModelCounts(), waiting=2)}), MODELS, complete=True))
    assert not traffic.is_busy("a")
