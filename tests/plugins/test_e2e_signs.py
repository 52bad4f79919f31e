"""What a set learns of its engines beside their health pages: hangs, signs of life, sleep, drains nobody tells of."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from collections.abc import Iterator

import pytest

from vllm_circus.bus.command import send_command
from vllm_circus.bus.messages import CommandMessage
from vllm_circus.lifecycle.states import State

from .conftest import wait_until
from .sets import Set, assert_nothing_failed_inside, free_port, run

pytestmark = pytest.mark.e2e
ODD_PORT = free_port()


def config(port: int) -> dict[str, object]:
    often = {"interval": 0.3}
    impatient = {**often, "timeout": 1.0, "restart_after": 2.0, "hang_after": 1.0}
    models: list[dict[str, object]] = [
        {"name": "odd", "port": ODD_PORT, "probe": impatient, "args": {"sim-faults": True}},
        {"name": "sleeper", "sleep": True, "idle": {"after": 600}},
    ]
    common = {"model": "sim/m", "gpus": []}
    return {
        "proxy": {"host": "127.0.0.1", "port": port},
        "defaults": {"engine": "simulator", "probe": often, "stop_timeout": 1.0, "drain_timeout": 60},
        "models": [{**common, **model} for model in models],
    }


@pytest.fixture(scope="module")
def running() -> Iterator[Set]:
    port = free_port()
    with run(config(port), port) as running:
        running.wait("odd", State.READY)
        running.wait("sleeper", State.READY)
        yield running


def fault(method: str, **values: object) -> None:
    """Change the faults of `odd`."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{ODD_PORT}/sim/fault",
        json.dumps(values).encode() if values else None,
        {"Content-Type": "application/json"},
        method=method,
    )
    urllib.request.urlopen(request, timeout=10).close()


def in_background(work: threading.Thread) -> threading.Thread:
    work.start()
    return work


def test_a_sick_health_page_ejects_nobody_while_clients_get_answers(running: Set) -> None:
    before = running.wait("odd", State.READY)
    client = in_background(threading.Thread(target=lambda: running.chat("odd", 700, stream=True)))
    wait_until(lambda: (of_odd := running.counts().models.get("odd")) and of_odd.chunk_gap.count > 0)
    fault("POST", name="health-error")
    deadline = time.monotonic() + 3.0  # longer than `restart_after`
    while time.monotonic() < deadline:
        model = running.model("odd")
        assert (model.state, model.pid) == (State.READY, before.pid)
    fault("DELETE")
    client.join(30)
    assert running.wait("odd", State.READY).pid == before.pid


def test_an_engine_that_makes_no_step_is_restarted_though_it_is_healthy(running: Set) -> None:
    before = running.wait("odd", State.READY)
    fault("POST", name="stuck")
    client = in_background(threading.Thread(target=lambda: running.chat("odd", 5)))
    wait_until(lambda: running.model("odd").pid not in {before.pid, None}, 20)
    client.join(30)
    after = running.wait("odd", State.READY)
    assert after.crash is not None
    assert after.crash.why.signature == "hung"
    assert after.crash.why.cause.startswith("it hung: 1 requests ran and the engine made no step for ")
    log = running.instance.log("health").read_text()
    assert "odd: ready -> unhealthy" not in log


def test_a_silent_engine_is_taken_out_and_restarted(running: Set) -> None:
    before = running.wait("odd", State.READY)
    fault("POST", name="health-silent")
    wait_until(lambda: running.model("odd").pid not in {before.pid, None}, 20)
    running.wait("odd", State.READY)
    log = running.instance.log("health").read_text()
    assert "odd: ready -> unhealthy: no answer within 1 s" in log
    assert "did not answer for 2 s: no answer within 1 s" in log


@pytest.mark.parametrize("level", [1, 2])
def test_a_model_sleeps_and_says_after_it_what_it_said_before(running: Set, level: int) -> None:
    awake = running.wait("sleeper", State.READY)
    said = json.loads(running.chat("sleeper")[1])["choices"][0]["message"]
    order = CommandMessage("sleep", ("sleeper",), 1 if level == 1 else 2)
    assert send_command(running.instance.commands, order, 10).accepted == ("sleeper",)
    asleep = running.wait("sleeper", State.SLEEPING)
    assert (asleep.pid, asleep.on_call) == (awake.pid, True)
    running.wish("wake", "sleeper")
    assert running.wait("sleeper", State.READY).pid == awake.pid
    assert json.loads(running.chat("sleeper")[1])["choices"][0]["message"] == said


def test_a_model_drains_though_the_stats_plugin_tells_nothing(running: Set) -> None:
    running.wait("odd", State.READY)
    running.circus.stop("plugin:stats")
    running.wish("stop", "odd")
    assert running.model("odd").state is State.DRAINING
    running.wait("odd", State.STOPPED, 20)  # and not after the 60 s of `drain_timeout`
    running.circus.start("plugin:stats")
    running.wish("start", "odd")
    running.wait("odd", State.READY)


def test_nothing_failed_inside_the_plugins(running: Set) -> None:
    assert_nothing_failed_inside(running)
