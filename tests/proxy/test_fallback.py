"""Another model that answers while the one that was asked for cannot."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.proxy.bus import bus_of
from tests.proxy.conftest import Start, a_model
from tests.proxy.engines import BROKEN, Held, all_seen, ask, engines, nobody, replicas
from tests.proxy.scripted import Backend, ok, post, read_message, until
from vllm_circus.bus.messages import ModelState
from vllm_circus.config.models import Queue, RequestRules
from vllm_circus.lifecycle.states import State
from vllm_circus.plan.types import Adapter, ModelPlan

BODY = b'{"model": "big",  "max_tokens": 9000}'
CAPPED = RequestRules(limits={"max_tokens": 100})


@pytest.fixture
def pair() -> Iterator[list[Backend]]:
    """The engines of `big` and of `small`, which answer their names."""
    with engines(2) as (big, small):
        big.answers(ok(b"big"))
        small.answers(ok(b"small"))
        yield [big, small]


def models(big: int, small: int, **changes: object) -> tuple[ModelPlan, ...]:
    of_small = {name: changes.pop(name) for name in ("request", "fallback") if name in changes}
    names = ("big", "b", "big-lora")
    return (
        a_model("big", big, names=names, adapters=(Adapter("big-lora", "/x"),), **{"fallback": "small"} | changes),
        a_model("small", small, **of_small),
    )


def test_it_answers_while_the_model_is_not_ready_and_says_who_it_is(start: Start, pair: list[Backend]) -> None:
    big, small = pair
    worker = start(*models(big.port, small.port))
    before = worker.chat(BODY)
    assert (before.body, before.get(b"x-vllm-circus-fallback")) == (b"big", None)
    with bus_of(worker) as bus:
        for state in (State.LOADING, State.FAILED, State.STOPPED, State.DRAINING):
            assert bus.acted_on(bus.says(ModelState("big", state), ModelState("small", State.READY)))
            response = worker.chat(BODY)
            assert (response.body, response.get(b"x-vllm-circus-fallback")) == (b"small", b"small")
        assert bus.acted_on(bus.says(ModelState("big", State.READY), ModelState("small", State.READY)))
        assert worker.chat(BODY).body == b"big"
        assert bus.acted_on(bus.says(ModelState("big", State.LOADING), ModelState("small", State.LOADING)))
        assert worker.chat(BODY).status == 503
    assert [request.body for request in small.requests] == [BODY] * 4, "as it was written"


def test_its_name_is_that_of_the_model_and_not_of_a_replica(start: Start, pair: list[Backend]) -> None:
    with nobody() as dead:
        of_small = (a_model(f"small-{n}", it.port, group="small", names=("small",)) for n, it in enumerate(pair))
        worker = start(a_model("big", dead, fallback="small"), *of_small)
        assert worker.chat(BODY).get(b"x-vllm-circus-fallback") == b"small"


def test_it_answers_while_nothing_can_be_reached(start: Start, backend: Backend) -> None:
    backend.answers(ok(b"small"))
    with nobody() as one, nobody() as two:
        worker = start(
            *replicas(one, two, fallback="small", group="big", names=("big",)), a_model("small", backend.port)
        )
        for _ in range(3):
            response = worker.chat(BODY)
            assert (response.body, response.get(b"x-vllm-circus-fallback")) == (b"small", b"small")


def test_an_adapter_has_no_fallback(start: Start, pair: list[Backend]) -> None:
    big, small = pair
    worker = start(*models(big.port, small.port))
    with bus_of(worker) as bus:
        assert bus.acted_on(bus.says(ModelState("big", State.LOADING)))
        assert worker.chat(b'{"model":"b"}').body == b"small"
        response = worker.chat(b'{"model":"big-lora"}')
        assert (response.status, response.get(b"x-vllm-circus-error")) == (503, b"model_not_ready")
    assert len(small.requests) == 1


def test_what_is_stored_has_no_fallback(start: Start, pair: list[Backend]) -> None:
    big, small = pair
    worker = start(*models(big.port, small.port))
    big.answers(ok(b'{"id":"resp_1"}'))
    worker.ask(post(BODY, path=b"/v1/responses"))
    with bus_of(worker) as bus:
        assert bus.acted_on(bus.says(ModelState("big", State.LOADING)))
        assert worker.get(b"/v1/responses/resp_1").status == 503
    assert small.requests == []


def test_it_is_one_step(start: Start, pair: list[Backend]) -> None:
    big, small = pair
    worker = start(*models(big.port, small.port, fallback="big")[:1], a_model("small", small.port, fallback="big"))
    worker.stop()
    with nobody() as one, nobody() as two:
        worker = start(a_model("big", one, fallback="small"), a_model("small", two, fallback="big"))
        assert [worker.chat(BODY).status for _ in range(3)] == [503] * 3


def test_the_engines_own_errors_and_a_full_queue_are_not_for_it(start: Start, pair: list[Backend]) -> None:
    big, small = pair
    worker = start(*models(big.port, small.port, max_in_flight=1, queue=Queue(size=0)))
    big.answers(BROKEN)
    assert worker.chat(BODY).status == 500
    held = Held()
    big.plays(held)
    client = ask(worker, BODY)
    assert all_seen(1, big)
    assert worker.chat(BODY).status == 429
    held.let()
    assert read_message(client).status == 200
    assert small.requests == []


def test_who_waits_moves_to_it_when_the_model_goes_away(start: Start, pair: list[Backend]) -> None:
    big, small = pair
    worker = start(*models(big.port, small.port, max_in_flight=1))
    held = Held()
    big.plays(held)
    first = ask(worker, BODY)
    assert all_seen(1, big)
    with bus_of(worker) as bus:
        waiting = [ask(worker, BODY) for _ in range(3)]
        assert until(lambda: bus.told and bus.told[-1].models["big"].waiting == 3)
        assert bus.acted_on(bus.says(ModelState("big", State.DRAINING)))
        assert [read_message(client).body for client in waiting] == [b"small"] * 3
        held.let()
        assert read_message(first).status == 200
        assert until(lambda: not any(told.in_flight or told.waiting for told in bus.told[-1].models.values()))


@pytest.mark.parametrize("pad", [b"", b"x" * 400_000])
def test_its_rules_hold_for_what_it_answers_and_those_of_the_other_do_not(
    start: Start, pair: list[Backend], pad: bytes
) -> None:
    big, small = pair
    worker = start(*models(big.port, small.port, request=CAPPED))
    body = b'{"model":"big","max_tokens":9000,"pad":"%b"}' % pad
    assert worker.chat(body).body == b"big"
    assert big.requests[0].body == body
    with bus_of(worker) as bus:
        assert bus.acted_on(bus.says(ModelState("big", State.LOADING)))
        assert worker.chat(body).body == b"small"
    assert small.requests[0].body == body.replace(b"9000", b"100")


def test_what_was_edited_for_one_that_is_not_there_is_edited_anew(start: Start, backend: Backend) -> None:
    backend.answers(ok(b"small"))
    with nobody() as dead:
        worker = start(
            a_model("big", dead, fallback="small", request=RequestRules(defaults={"top_k": 5})),
            a_model("small", backend.port, request=CAPPED),
        )
        for number in range(1, 3):
            assert worker.chat(BODY).body == b"small"
            assert backend.requests[-1].body == BODY.replace(b"9000", b"100")
            assert len(backend.requests) == number
