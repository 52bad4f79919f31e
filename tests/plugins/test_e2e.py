"""The health and the stats plugin under a real circusd, with simulated engines, and the faults of real ones."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from vllm_circus.bus.messages import ModelState
from vllm_circus.lifecycle.states import State

from .conftest import wait_until
from .sets import Set, alive, assert_nothing_failed_inside, free_port, run, session

pytestmark = pytest.mark.e2e


def config(port: int) -> dict[str, object]:
    often = {"interval": 0.3}  # and with patience: none of these is silent but for want of a core
    retry = {"first_delay": 0.1, "max_delay": 0.2, "max_tries": 3, "reset_after": 1.0}
    models: list[dict[str, object]] = [
        {"name": "a", "aliases": ["ay"], "args": {"sim-token-seconds": 0.05}},
        {"name": "b", "drain_timeout": 1.0, "args": {"sim-token-seconds": 0.05}},
        {"name": "stubborn", "enabled": False, "args": {"sim-ignore-sigterm": "always"}},
        {"name": "broken", "enabled": False, "args": {"sim-fail-phase": "weights", "sim-fail-message": "OSError: no!"}},
        {"name": "sleepy", "enabled": False, "sleep": True},
        {"name": "slow", "enabled": False, "args": {"sim-load-seconds": 60}},
    ]
    common = {"model": "sim/m", "gpus": []}
    return {
        "proxy": {"host": "127.0.0.1", "port": port},
        "defaults": {"engine": "simulator", "probe": often, "restart": retry, "stop_timeout": 1.0},
        "models": [{**common, "port": free_port(), **model} for model in models],
    }


@pytest.fixture(scope="module")
def running() -> Iterator[Set]:
    port = free_port()
    with run(config(port), port) as running:
        running.wait("a", State.READY)
        running.wait("b", State.READY)
        yield running


def untouched(state: ModelState) -> ModelState:
    """What nothing but time changes of a model that nobody touches left out."""
    return replace(state, probed_at=None)


def test_a_killed_server_is_back_by_itself_without_orphans_and_the_other_never_notices(running: Set) -> None:
    before, other = running.wait("a", State.READY), running.wait("b", State.READY)
    assert before.pid is not None
    tree = wait_until(lambda: len(session(before.pid or 0)) > 1 and session(before.pid or 0))
    os.kill(before.pid, signal.SIGKILL)
    wait_until(lambda: running.model("a").pid not in {before.pid, None})
    assert not any(map(alive, tree))
    after = running.wait("a", State.READY)
    assert after.started_at is not None
    assert before.started_at is not None
    assert after.started_at > before.started_at
    assert untouched(running.model("b")) == untouched(other)
    assert running.chat("ay")[0] == 200


def test_a_dead_engine_behind_a_living_server_is_a_crash_although_the_exit_code_is_0(running: Set) -> None:
    time_to_forget = running.wait("a", State.READY)
    wait_until(lambda: running.model("a").tries == 0)
    assert time_to_forget.pid is not None
    core = min(session(time_to_forget.pid) - {time_to_forget.pid})
    os.kill(core, signal.SIGKILL)
    wait_until(lambda: running.model("a").pid not in {time_to_forget.pid, None})
    running.wait("a", State.READY)
    log = running.instance.log("health").read_text()
    assert "a: ready -> queued: exit code 0: " in log or "a: unhealthy -> queued: exit code 0: " in log


def test_circusctl_is_obeyed_and_agrees(running: Set) -> None:
    running.wait("b", State.READY)
    running.circus.stop("model-b")
    stopped = running.wait("b", State.STOPPED)
    assert stopped.reason == "stopped through circus"
    status, _ = running.chat("b")
    assert status == 503
    wait_until(lambda: running.circus.status()["model-b"] == "stopped")  # one that is still stopping starts nothing
    running.circus.start("model-b")
    running.wait("b", State.READY)
    old = running.model("b").pid
    running.circus.call("restart", name="model-b", match="simple")
    wait_until(lambda: running.model("b").pid not in {old, None})
    running.wait("b", State.READY)
    running.wish("stop", "b")
    running.wait("b", State.STOPPED)
    wait_until(lambda: running.circus.status()["model-b"] == "stopped")
    running.wish("start", "b")
    running.wait("b", State.READY)
    assert running.circus.status()["model-b"] == "active"
    assert running.circus.pids("model-b") == [running.model("b").pid]


def test_a_stream_in_flight_is_whole_when_its_model_is_restarted_and_what_comes_then_waits(running: Set) -> None:
    old = running.wait("a", State.READY)
    answers: list[tuple[int, bytes]] = []
    client = threading.Thread(target=lambda: answers.append(running.chat("a", 200, stream=True)))
    client.start()
    wait_until(lambda: running.counts().models.get("a") and running.counts().models["a"].in_flight == 1)
    running.wish("restart", "a")
    assert running.model("a").state is State.DRAINING
    assert running.chat("a")[0] == 200  # by the new process
    client.join(20)
    status, body = answers[0]
    assert status == 200
    assert body.rstrip().endswith(b"data: [DONE]")
    assert b'"error"' not in body
    new = running.wait("a", State.READY)
    assert new.pid != old.pid


def test_draining_ends_in_time_even_if_the_stream_does_not(running: Set) -> None:
    running.wait("b", State.READY)
    answers: list[object] = []

    def ask() -> None:
        try:
            answers.append(running.chat("b", 2000, stream=True))
        except OSError as error:
            answers.append(error)

    client = threading.Thread(target=ask)
    client.start()
    wait_until(lambda: running.counts().models.get("b") and running.counts().models["b"].in_flight == 1)
    running.wish("stop", "b")
    running.wait("b", State.STOPPED, 8)
    client.join(20)
    assert answers
    running.wish("start", "b")
    running.wait("b", State.READY)


def test_killing_the_health_plugin_restarts_nothing_and_its_successor_goes_on(running: Set) -> None:
    before = {name: untouched(running.wait(name, State.READY)) for name in "ab"}
    sequence = running.models().sequence
    old = running.plugin("health")
    os.kill(old, signal.SIGKILL)
    wait_until(lambda: running.models().pid != old)
    assert running.models().sequence > sequence
    assert {name: untouched(running.model(name)) for name in "ab"} == before
    assert running.chat("a")[0] == running.chat("b")[0] == 200


def test_a_health_plugin_without_a_memory_restarts_nothing_either(running: Set) -> None:
    before = {name: running.wait(name, State.READY).pid for name in "ab"}
    old = running.plugin("health")
    os.kill(old, signal.SIGSTOP)
    (running.instance.state_dir / "health.json").write_text('{"version": 1, "lives": [')
    os.kill(old, signal.SIGKILL)
    wait_until(lambda: running.models().pid != old)
    assert {name: running.wait(name, State.READY).pid for name in "ab"} == before


@pytest.mark.parametrize("lost", [True, False], ids=["lost", "of an earlier time"])
def test_an_engine_that_sleeps_gets_no_request_by_a_memory_that_does_not_know_it(running: Set, lost: bool) -> None:
    running.wish("start", "sleepy")
    before = running.wait("sleepy", State.READY).pid
    file = running.instance.state_dir / "health.json"
    earlier = file.read_bytes()  # a full disk keeps it as it was
    running.wish("sleep", "sleepy")
    running.wait("sleepy", State.SLEEPING)
    old = running.plugin("health")
    os.kill(old, signal.SIGSTOP)
    file.write_bytes(b"{" if lost else earlier)
    os.kill(old, signal.SIGKILL)
    wait_until(lambda: running.models().pid != old)
    assert running.chat("sleepy")[0] == 200, "it was woken up"
    assert running.wait("sleepy", State.READY).pid == before
    running.wish("stop", "sleepy")
    running.wait("sleepy", State.STOPPED)


def test_an_engine_that_dies_while_nobody_watches_is_back(running: Set) -> None:
    before = running.wait("b", State.READY)
    assert before.pid is not None
    health = running.plugin("health")
    os.kill(health, signal.SIGSTOP)
    os.kill(before.pid, signal.SIGKILL)
    wait_until(lambda: not alive(before.pid or 0))
    os.kill(health, signal.SIGKILL)
    wait_until(lambda: running.model("b").pid not in {before.pid, None})
    running.wait("b", State.READY)


def test_no_count_is_lost_or_doubled_when_the_stats_plugin_is_killed(running: Set) -> None:
    running.wait("a", State.READY)

    def requests() -> int:
        of_model = running.counts().models.get("a")
        return of_model.requests if of_model else 0

    before = requests()
    assert all(running.chat("a")[0] == 200 for _ in range(5))
    wait_until(lambda: requests() == before + 5)
    old = running.plugin("stats")
    os.kill(old, signal.SIGKILL)
    wait_until(lambda: running.counts().pid != old)
    assert running.chat("a")[0] == 200
    wait_until(lambda: requests() == before + 6)


def test_an_engine_of_which_one_process_was_stopped_is_restarted_though_it_is_healthy(running: Set) -> None:
    before = running.wait("b", State.READY)
    assert before.pid is not None
    part = max(wait_until(lambda: session(before.pid or 0) - {before.pid}))
    os.kill(part, signal.SIGSTOP)
    wait_until(lambda: running.model("b").pid not in {before.pid, None}, 20)
    assert not session(before.pid)
    after = running.wait("b", State.READY)
    assert after.crash is not None
    assert after.crash.why.cause == f"its process {part} was stopped (SIGSTOP) and did not go on"


def test_a_server_that_ignores_sigterm_is_killed(running: Set) -> None:
    running.wish("start", "stubborn")
    pid = running.wait("stubborn", State.READY).pid
    assert pid is not None
    running.wish("stop", "stubborn")
    running.wait("stubborn", State.STOPPED, 10)
    assert not session(pid)
    wait_until(lambda: running.circus.status()["model-stubborn"] == "stopped")


def test_a_load_can_be_broken_off(running: Set) -> None:
    running.wish("start", "slow")
    wait_until(lambda: running.model("slow").phase)
    pid = running.model("slow").pid
    assert pid is not None
    running.wish("stop", "slow")
    running.wait("slow", State.STOPPED, 10)
    assert not session(pid)


def test_a_model_that_cannot_start_fails_after_its_tries_and_says_why(running: Set) -> None:
    running.wish("start", "broken")
    failed = running.wait("broken", State.FAILED, 40)
    assert (failed.tries, failed.reason) == (3, "exit code 1: OSError: no!")
    log = running.instance.log("health").read_text()
    assert log.count("broken: queued -> loading") == 3
    running.wait("a", State.READY)
    running.wait("b", State.READY)
    wait_until(lambda: running.circus.status()["model-broken"] == "stopped")


def test_nothing_failed_inside_the_plugins(running: Set) -> None:
    assert_nothing_failed_inside(running)
