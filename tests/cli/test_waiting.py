"""What counts as done when an operator waits."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
import zmq

from vllm_circus.bus.messages import (
    TOPIC_COUNTS,
    TOPIC_MODELS,
    CountsMessage,
    ModelsMessage,
    ModelState,
    WorkerState,
    encode,
)
from vllm_circus.bus.subscribe import latest
from vllm_circus.cli.lastwords import proxy_words
from vllm_circus.cli.waiting import (
    ProxyWatch,
    Reporter,
    check_failed,
    wait_for,
)
from vllm_circus.errors import NotRunning
from vllm_circus.lifecycle.states import State
from vllm_circus.logline import encode as log_line
from vllm_circus.paths import Instance
from vllm_circus.supervise.lock import hold_lock
from vllm_circus.view.goals import Verdict, judge_restart, judge_start, judge_stop


def state(
    kind: State, *, since: float = 10.0, started: float | None = None, tries: int = 0, reason: str = ""
) -> ModelState:
    return ModelState("qwen", kind, reason, since_at=since, started_at=started, tries=tries)


FAILED = state(State.FAILED, since=1.0)


@pytest.mark.parametrize(
    ("before", "now", "verdict"),
    [
        (None, state(State.STOPPED), Verdict.WAITING),
        (None, state(State.QUEUED), Verdict.WAITING),
        (None, state(State.LOADING), Verdict.WAITING),
        (None, state(State.READY), Verdict.DONE),
        (None, FAILED, Verdict.FAILED),
        (None, state(State.BACKOFF, tries=1), Verdict.WAITING),
        (None, state(State.BACKOFF, tries=2), Verdict.FAILED),
        (FAILED, FAILED, Verdict.WAITING),
        (FAILED, state(State.QUEUED), Verdict.WAITING),
        (FAILED, state(State.FAILED), Verdict.FAILED),
        (state(State.STOPPED), state(State.STOPPED), Verdict.WAITING),
        (FAILED, state(State.STOPPED), Verdict.FAILED),
        (state(State.READY), state(State.READY), Verdict.DONE),
    ],
)
def test_a_start_is_over_when_the_model_is_ready_or_hopeless(
    before: ModelState | None, now: ModelState, verdict: Verdict
) -> None:
    assert judge_start(before, now) is verdict


OLD = state(State.READY, since=1.0, started=1.0)


@pytest.mark.parametrize(
    ("before", "now", "verdict"),
    [
        (OLD, OLD, Verdict.WAITING),
        (OLD, state(State.DRAINING, started=1.0), Verdict.WAITING),
        (OLD, state(State.LOADING, started=20.0), Verdict.WAITING),
        (OLD, state(State.READY, since=25.0, started=20.0), Verdict.DONE),
        (OLD, state(State.FAILED, since=25.0), Verdict.FAILED),
        (state(State.STOPPED), state(State.STOPPED), Verdict.WAITING),
        (state(State.STOPPED), state(State.READY, started=20.0), Verdict.DONE),
    ],
)
def test_a_restart_is_over_when_another_process_is_ready(before: ModelState, now: ModelState, verdict: Verdict) -> None:
    assert judge_restart(before, now) is verdict


def test_a_stop_is_over_when_the_model_is_stopped() -> None:
    assert judge_stop(OLD, state(State.DRAINING)) is Verdict.WAITING
    assert judge_stop(OLD, state(State.STOPPED)) is Verdict.DONE
    assert judge_stop(OLD, state(State.LOADING, started=1.0)) is Verdict.WAITING


def test_a_stop_that_somebody_else_undid_is_given_up() -> None:
    assert judge_stop(OLD, state(State.QUEUED)) is Verdict.WAITING
    assert judge_stop(OLD, state(State.LOADING, started=20.0)) is Verdict.FAILED
    assert judge_stop(OLD, state(State.READY, started=20.0)) is Verdict.FAILED


def test_each_change_is_told_once() -> None:
    told: list[str] = []
    report = Reporter(False, told.append)
    loading = ModelState("qwen", State.LOADING, phase="loading weights\x1b[2J", since_at=10.0)
    for seen in (loading, loading, state(State.BACKOFF, reason="died"), state(State.READY)):
        report.show({"qwen": seen}, 12.0)
    assert told == ["qwen: loading (loading weights)", "qwen: backoff (died)", "qwen: ready"]


def test_failures_are_told_with_their_reasons(instance: Instance) -> None:
    failed = {"b": state(State.FAILED, reason="CUDA out of memory"), "a": state(State.BACKOFF)}
    with pytest.raises(NotRunning) as caught:
        check_failed(instance, failed)
    assert str(caught.value) == "a is not ready: backoff\n       b is not ready: CUDA out of memory"
    assert caught.value.hint == "see `vllm-circus logs a b`"
    check_failed(instance, {})


Tell = Callable[[ModelsMessage | CountsMessage], None]
WORKER = WorkerState(pid=7, sequence=1, connections=0, seen_at=1.0)


def counts(*workers: WorkerState) -> CountsMessage:
    return CountsMessage(1.0, 1, {}, {}, {}, {}, workers, ())


def models(*states: ModelState) -> ModelsMessage:
    return ModelsMessage(1.0, 1, 1, states)


@pytest.fixture
def tell(instance: Instance) -> Iterator[Tell]:
    """A running set without a process: whatever is told is repeated until the end."""
    said: dict[bytes, bytes] = {}
    over = threading.Event()
    context = zmq.Context()

    def publish() -> None:
        sockets = {TOPIC_MODELS: context.socket(zmq.PUB), TOPIC_COUNTS: context.socket(zmq.PUB)}
        sockets[TOPIC_MODELS].bind(instance.health_bus)
        sockets[TOPIC_COUNTS].bind(instance.stats_bus)
        while not over.wait(0.02):
            for topic, data in tuple(said.items()):
                sockets[topic].send_multipart([topic, data])
        for each in sockets.values():
            each.close(linger=0)

    def say(message: ModelsMessage | CountsMessage) -> None:
        said[TOPIC_MODELS if isinstance(message, ModelsMessage) else TOPIC_COUNTS] = encode(message)

    with hold_lock(instance):
        instance.pidfile.write_text("1\n")
        publisher = threading.Thread(target=publish)
        publisher.start()
        yield say
        over.set()
        publisher.join()
    context.term()


def wait(instance: Instance, *, patience: float, timeout: float | None = 20.0) -> dict[str, ModelState]:
    watch = ProxyWatch(instance, patience)
    return wait_for(instance, ["qwen"], judge_start, before={}, timeout=timeout, proxy=watch)


def await_told(instance: Instance) -> None:
    """Until both topics can be heard."""
    assert latest(instance.health_bus, TOPIC_MODELS, ModelsMessage, 20) is not None
    assert latest(instance.stats_bus, TOPIC_COUNTS, CountsMessage, 20) is not None


def test_a_set_is_up_when_its_models_are_ready_and_a_worker_lives(instance: Instance, tell: Tell) -> None:
    tell(models(state(State.READY)))
    tell(counts(WORKER))
    assert wait(instance, patience=20) == {}


def test_a_worker_is_waited_for(instance: Instance, tell: Tell) -> None:
    tell(models(state(State.READY)))
    tell(counts())
    threading.Timer(0.3, tell, [counts(WORKER)]).start()
    began = time.monotonic()
    assert wait(instance, patience=20) == {}
    assert time.monotonic() - began > 0.25


def complain(instance: Instance, at: datetime) -> None:
    """A worker's last words in its log."""
    instance.log("proxy").parent.mkdir(parents=True)
    instance.log("proxy").write_text(log_line(at, "E", "error: no keys") + log_line(at, "E", "  write one"))


def test_words_of_the_very_millisecond_in_which_the_set_began_are_its_own(instance: Instance) -> None:
    began = datetime(2026, 11, 23, 14, 31, 53, 123_900, tzinfo=UTC)
    instance.run_dir.mkdir(parents=True, exist_ok=True)
    instance.pidfile.touch()
    os.utime(instance.pidfile, (began.timestamp(), began.timestamp()))
    complain(instance, began)  # its log line tells no more than 53.123
    assert proxy_words(instance) == "error: no keys; write one"


def test_words_of_an_earlier_set_say_nothing(instance: Instance) -> None:
    began = datetime(2026, 11, 23, 14, 31, 53, 123_900, tzinfo=UTC)
    instance.run_dir.mkdir(parents=True, exist_ok=True)
    instance.pidfile.touch()
    os.utime(instance.pidfile, (began.timestamp(), began.timestamp()))
    complain(instance, began - timedelta(milliseconds=1))
    assert proxy_words(instance) == ""


def test_ready_models_that_nobody_can_reach_are_no_success(instance: Instance, tell: Tell) -> None:
    complain(instance, datetime.now(UTC))
    tell(models(state(State.READY)))
    tell(counts())
    await_told(instance)
    with pytest.raises(NotRunning) as caught:
        wait(instance, patience=2)  # time enough to hear what is told
    assert str(caught.value) == "nothing is served: no proxy worker stays alive: error: no keys; write one"
    assert caught.value.hint == "see `vllm-circus logs proxy`; `vllm-circus down` stops the set"
    with pytest.raises(NotRunning, match=r"not there after 2 s: the proxy$"):
        wait(instance, patience=20, timeout=2)


def test_a_silent_stats_plugin_is_named_instead_of_the_proxy(instance: Instance, tell: Tell) -> None:
    tell(models(state(State.READY)))
    with pytest.raises(NotRunning, match="the stats plugin is silent"):
        wait(instance, patience=0.3)


def test_a_model_that_failed_is_told_whatever_the_proxy_does(instance: Instance, tell: Tell) -> None:
    tell(models(state(State.FAILED)))
    tell(counts())
    assert set(wait(instance, patience=20)) == {"qwen"}


def test_when_the_time_is_over_those_that_had_failed_are_named_as_well(instance: Instance, tell: Tell) -> None:
    tell(models(state(State.FAILED, reason="out of memory"), ModelState("slow", State.LOADING)))
    assert latest(instance.health_bus, TOPIC_MODELS, ModelsMessage, 20) is not None
    with pytest.raises(NotRunning) as caught:
        wait_for(instance, ["slow", "qwen"], judge_start, before={}, timeout=2)
    assert str(caught.value) == "not there after 2 s: slow\n       qwen is failed: out of memory"
    assert caught.value.hint == "see `vllm-circus status`"
