"""The whole path with real engines: what a client gets through the proxy, and what becomes of a crash.

The tests run in the order of this file: they share one set, and the last ones break and end it.
"""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import openai
import pytest

from tests.real_vllm.conftest import Neighbour, Report
from tests.real_vllm.fleet import (
    ALIAS_A,
    BY_HAND,
    LOAD_LIMIT,
    LORA_A,
    MODEL_A,
    MODEL_B,
    MODEL_POOL,
    Fleet,
    environ,
    family,
    healthy,
    listening,
    living,
    memory,
    wait_for,
)

pytestmark = pytest.mark.timeout(900)

MIB = 1 << 20
#: What a client may ask for, and what the answer calls itself.
NAMES = {MODEL_A: MODEL_A, ALIAS_A: MODEL_A, LORA_A: LORA_A, MODEL_B: MODEL_B}


def ask(fleet: Fleet, name: str) -> str:
    """A short answer of a model: noise, and it may be nothing but marks that are not shown."""
    answer = fleet.client().completions.create(model=name, prompt="Once upon", max_tokens=8, temperature=0, seed=1)
    assert answer.usage
    assert answer.usage.completion_tokens > 0
    return answer.choices[0].text


@pytest.mark.parametrize("name", NAMES)
def test_a_chat_is_answered_under_every_name(fleet: Fleet, name: str) -> None:
    answer = fleet.client().chat.completions.create(
        model=name, messages=[{"role": "user", "content": "Hello"}], max_tokens=8, temperature=0
    )
    assert answer.model == NAMES[name]
    assert answer.choices[0].message.content
    assert answer.usage
    assert answer.usage.completion_tokens == 8


@pytest.mark.parametrize("name", NAMES)
def test_a_chat_is_streamed_under_every_name(fleet: Fleet, name: str) -> None:
    stream = fleet.client().chat.completions.create(
        model=name,
        messages=[{"role": "user", "content": "Hello"}],
        max_tokens=8,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    assert {chunk.model for chunk in chunks} == {NAMES[name]}
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert chunks[-1].usage
    assert chunks[-1].usage.completion_tokens == 8


@pytest.mark.parametrize("name", NAMES)
def test_a_completion_is_the_same_streamed_and_not(fleet: Fleet, name: str) -> None:
    stream = fleet.client().completions.create(
        model=name, prompt="Once upon", max_tokens=8, temperature=0, seed=1, stream=True
    )
    assert "".join(chunk.choices[0].text for chunk in stream) == ask(fleet, name)


def test_the_adapter_is_really_used(fleet: Fleet) -> None:
    assert ask(fleet, LORA_A) != ask(fleet, MODEL_A) == ask(fleet, ALIAS_A)


def test_every_name_is_listed(fleet: Fleet) -> None:
    listed = {model.id: model.model_dump() for model in fleet.client().models.list()}
    assert set(listed) == {*NAMES, BY_HAND, MODEL_POOL}


def test_an_unknown_model_is_not_found(fleet: Fleet) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        ask(fleet, "nobody")
    assert refused.value.code == "model_not_found"
    assert refused.value.response.headers["x-vllm-circus-error"] == "model_not_found"


def test_circusctl_agrees_with_status(fleet: Fleet) -> None:
    status = fleet.status()
    circusctl = [str(Path(sys.executable).with_name("circusctl")), "--endpoint", status["circusd"]["endpoint"]]
    run = subprocess.run([*circusctl, "status"], capture_output=True, text=True, check=True, timeout=30)
    told = dict(line.split(": ") for line in run.stdout.splitlines())
    for model in status["models"]:
        assert (model["state"], told[model["watcher"]]) == ("ready", "active")
        pids = subprocess.run(
            [*circusctl, "list", model["watcher"]], capture_output=True, text=True, check=True, timeout=30
        )
        assert re.findall(r"\d+", pids.stdout) == [str(model["pid"])]
    assert told["proxy"] == "active"


def test_logs_follow_the_engine(fleet: Fleet, report: Report) -> None:
    argv = [sys.executable, "-m", "vllm_circus", "logs", MODEL_B, "-f", "-n", "1"]
    with subprocess.Popen(argv, env=environ(fleet.home), stdout=subprocess.PIPE) as follower:
        assert follower.stdout
        try:
            read_until(follower.stdout.fileno(), rb"\n", 30)  # the last line from before: now it follows
            begin = time.monotonic()
            ask(fleet, MODEL_B)
            line = read_until(follower.stdout.fileno(), rb"POST /v1/completions HTTP/1.1\D+200", 10)
            report(f"an engine's log line is shown {time.monotonic() - begin:.2f} s after the request was sent")
        finally:
            follower.send_signal(signal.SIGINT)
    assert MODEL_A.encode() not in line


def read_until(descriptor: int, wanted: bytes, seconds: float) -> bytes:
    """What comes until a pattern is in it. Raises AssertionError with what came instead."""
    deadline, seen = time.monotonic() + seconds, b""
    while not re.search(wanted, seen):
        ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, f"{wanted!r} did not come within {seconds:g} s; what came: {seen[-2000:]!r}"
        seen += os.read(descriptor, 65536)
    return seen


def test_memory_is_as_expected(fleet: Fleet, report: Report) -> None:
    status = fleet.status()
    engines = [process for model in status["models"] for process in family(model["pid"])]
    everything = family(status["circusd"]["pid"])
    ours = [process for process in everything if process not in engines]
    report(f"memory (PSS): three engines {memory(engines) / MIB:.0f} MiB, all of ours {memory(ours) / MIB:.0f} MiB")
    for process in ours:
        report(f"  {memory([process]) / MIB:6.1f} MiB  {' '.join(process.cmdline())[:100]}")
    assert memory(ours) < 400 * MIB


def test_neighbours_are_not_disturbed(fleet: Fleet, neighbour: Neighbour, by_hand: int) -> None:
    answer = openai.OpenAI(base_url=f"http://127.0.0.1:{neighbour.port}/v1", api_key="unused").models.list()
    assert [model.id for model in answer] == ["other"]
    ask(fleet, MODEL_A)
    assert healthy(by_hand)


def test_an_api_server_that_is_killed_comes_back_and_the_other_goes_on(fleet: Fleet, report: Report) -> None:
    before = fleet.model(MODEL_A)["pid"]
    tree = family(before)
    begin = time.monotonic()
    os.kill(before, signal.SIGKILL)
    gone = wait_for(lambda: not living(tree), "the whole tree of the killed server to be gone", 10)
    with pytest.raises(openai.InternalServerError) as refused:
        ask(fleet, MODEL_A)
    assert refused.value.status_code == 503
    assert int(refused.value.response.headers["retry-after"]) > 0
    answers = 0
    while (now := fleet.model(MODEL_A))["state"] != "ready":
        ask(fleet, MODEL_B)
        answers += 1
        time.sleep(1)  # a request a second: asking without a pause would slow the loading down
        assert time.monotonic() - begin < LOAD_LIMIT, now
    assert now["pid"] not in {process.pid for process in tree}
    ask(fleet, MODEL_A)
    assert answers > 0
    report(
        f"kill -9 of an API server: all of its tree gone after {gone:.1f} s, ready again after "
        f"{time.monotonic() - begin:.1f} s, {answers} of {answers} requests to the other model answered meanwhile"
    )


def test_down_leaves_nothing_of_ours_and_everything_of_others(
    fleet: Fleet, neighbour: Neighbour, by_hand: int, report: Report
) -> None:
    status = fleet.status()
    ours = family(status["circusd"]["pid"])
    ports = [fleet.port, *(model["port"] for model in status["models"])]
    begin = time.monotonic()
    down = fleet.command("down")
    assert down.returncode == 0, down.stderr
    report(f"down took {time.monotonic() - begin:.1f} s")
    assert living(ours) == []
    assert [port for port in ports if listening(port)] == []
    assert fleet.command("status").returncode == 3
    assert neighbour.command("status").returncode == 0
    assert healthy(by_hand)
