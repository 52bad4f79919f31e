"""The plugins as circus runs them: a process each, ended and killed, without a circusd."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path

import pytest

from vllm_circus import logline
from vllm_circus.bus.inbox import Pusher
from vllm_circus.bus.messages import HEARTBEAT, TOPIC_COUNTS, CountsMessage, ModelCounts, WorkerMessage
from vllm_circus.bus.subscribe import follow, latest
from vllm_circus.paths import Instance
from vllm_circus.plan.types import dump_plan

from .conftest import make_plan, wait_until

Run = Callable[[str], subprocess.Popen[bytes]]


@pytest.fixture
def run(instance: Instance) -> Iterator[Run]:
    """Start a plugin as circus does: its class's full name, and one option."""
    instance.plan.write_bytes(dump_plan(make_plan(instance)))
    started: list[subprocess.Popen[bytes]] = []

    def start(target: str) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-c", "from circus import plugins;plugins.main()"]
        argv += ["--endpoint", instance.control, "--pubsub", instance.events]
        argv += ["--config", f"settings:{instance.plan}", target]
        started.append(subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


STATS = "vllm_circus_plugins.stats.StatsPlugin"
HEALTH = "vllm_circus_plugins.health.HealthPlugin"


def counts(instance: Instance) -> CountsMessage:
    message = latest(instance.stats_bus, TOPIC_COUNTS, CountsMessage, 15)
    assert message is not None
    return message


def worker(requests: int, **changes: object) -> WorkerMessage:
    models = {"a": ModelCounts(statuses={200: requests}, in_flight=1)}
    message = WorkerMessage(f"{os.getpid()}-1", os.getpid(), time.time(), 5, 3, models)
    return replace(message, **changes)  # type: ignore[arg-type] # the values fit: they are the test's


def texts(path: Path) -> list[str]:
    lines = map(logline.decode, path.read_text().splitlines())
    return [line.text for line in lines if line is not None]


def test_stats_beats_counts_saves_and_goes_on(instance: Instance, run: Run) -> None:
    process = run(STATS)
    pusher = Pusher(instance.stats_inbox)
    wait_until(lambda: pusher.push(worker(3)))
    wait_until(lambda: counts(instance).models.get("a"))
    first = counts(instance)
    assert (first.models["a"].requests, first.models["a"].in_flight) == (3, 1)
    assert [(each.pid, each.sequence, each.connections) for each in first.workers] == [(os.getpid(), 5, 3)]
    process.terminate()
    assert process.wait(10) == 0
    assert not Path(instance.stats_bus.removeprefix("ipc://")).exists()
    assert "INFO stats ends" in texts(instance.log("stats"))

    process = run(STATS)
    assert counts(instance).models["a"].requests == 3
    process.kill()  # nothing is saved, and the sockets stay behind
    process.wait()

    run(STATS)
    wait_until(lambda: pusher.push(worker(7)))
    wait_until(lambda: counts(instance).models["a"].requests == 7)
    wait_until(lambda: pusher.push(worker(8, leaving=True)))
    wait_until(lambda: not counts(instance).workers)
    assert counts(instance).models["a"] == ModelCounts(statuses={200: 8})
    pusher.close()


def test_stats_tells_at_once_when_a_worker_has_heard_of_a_change(instance: Instance, run: Run) -> None:
    run(STATS)
    pusher = Pusher(instance.stats_inbox)
    wait_until(lambda: pusher.push(worker(1)))
    counts(instance)
    began = time.monotonic()
    for sequence in range(6, 26):
        pusher.push(worker(1, sequence=sequence))
        wait_until(lambda sequence=sequence: counts(instance).workers[0].sequence == sequence)  # type: ignore[misc]
    assert time.monotonic() - began < 10 * HEARTBEAT  # by its beats it would be twenty
    pusher.close()


def test_stats_beats_every_second_with_nothing_to_tell(instance: Instance, run: Run) -> None:
    run(STATS)
    counts(instance)
    heard: list[float] = []
    for message in islice(follow(instance, 20 * HEARTBEAT), 5):
        assert message is not None
        heard.append(time.monotonic())
    assert min(b - a for a, b in pairwise(heard)) < 2 * HEARTBEAT  # any other may have waited for a core


def test_garbage_on_disk_and_in_the_inbox_ends_nothing(instance: Instance, run: Run) -> None:
    (instance.state_dir / "stats.json").write_text("{ not json")
    run(STATS)
    import zmq

    raw: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.PUSH)
    raw.connect(instance.stats_inbox)
    for data in (b"", b"{}", b"\xff" * 1000):
        raw.send(data)
    assert counts(instance).models == {}
    wait_until(lambda: any("3 so far" in text for text in texts(instance.log("stats"))))
    raw.close(linger=0)
    assert any("counting anew" in text for text in texts(instance.log("stats")))


def test_a_plugin_whose_address_was_taken_over_leaves(instance: Instance, run: Run) -> None:
    former = run(STATS)
    counts(instance)
    successor = run(STATS)
    assert former.wait(15) == 0
    assert counts(instance).pid == successor.pid


@pytest.mark.parametrize("target", [STATS, HEALTH])
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_plugin_that_hears_nobody(
    instance: Instance, run: Run, target: str, signum: signal.Signals
) -> None:
    process = run(target)
    name = target.split(".")[1]
    wait_until(lambda: instance.log(name).exists() and len(texts(instance.log(name))) > 1)
    process.send_signal(signum)
    assert process.wait(10) == 0
    told = texts(instance.log(name))
    assert not any("Traceback" in text for text in told), told
