"""The commands against a real circusd with simulated engines."""

from __future__ import annotations

import json
import os
import re
import select
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from tests.e2e.conftest import Circus, await_that, write_models

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

Port = Callable[[], int]


def ask(circus: Circus, model: str) -> requests.Response:
    url = f"{circus.status()['proxy']['url']}/chat/completions"
    return requests.post(url, json={"model": model, "messages": [{"role": "user", "content": "hi"}]}, timeout=30)


def wait_line(process: subprocess.Popen[str], *wanted: str, within: float = 60.0) -> str:
    """Read the process's output until a line holds all that is wanted; returns it."""
    assert process.stdout is not None
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        if select.select([process.stdout], [], [], 0.5)[0]:
            line = process.stdout.readline()
            assert line, "the output ended"
            if all(word in line for word in wanted):
                return line
    raise AssertionError(f"no line with {wanted} within {within:g} s")


def test_a_set_is_started_operated_and_stopped(circus: Circus, models_file: Path) -> None:
    up = circus("up", str(models_file), "-d", "--wait", "--timeout", "100")
    assert up.stdout == ""
    assert "alpha: ready" in up.stderr
    assert re.search(r"^(/\S+/)?circusctl --endpoint ipc://\S+$", up.stderr, re.MULTILINE)

    status = circus.status()
    assert status["ready"] is True
    assert [(model["name"], model["state"]) for model in status["models"]] == [
        ("alpha", "ready"),
        ("beta", "ready"),
        ("gamma", "stopped"),
    ]
    assert all(plugin["alive"] for plugin in status["plugins"])
    assert ask(circus, "first").json()["model"] == "alpha"
    await_that(lambda: circus.model("alpha")["traffic"]["requests"] == 1)
    await_that(lambda: "`vllm-circus start gamma` starts it" in circus("ps").stdout)

    assert circus("start", "gamma").returncode == 0
    assert ask(circus, "gamma").status_code == 200
    circus("stop", "gamma")
    assert circus.model("gamma")["state"] == "stopped"
    assert ask(circus, "gamma").status_code == 503
    assert circus("stop", "gamma").stderr == "gamma: nothing to do, it is stopped\n"
    assert circus("start", "gamma", "alpha", "--timeout", "60").stderr.count("alpha") == 1
    circus("stop", "gamma")

    before = circus.model("alpha")
    circus("restart", "alpha")
    after = circus.model("alpha")
    assert after["state"] == "ready"
    assert after["pid"] != before["pid"]
    assert circus.model("beta")["pid"] == next(m["pid"] for m in status["models"] if m["name"] == "beta")

    assert "did you mean `alpha`?" in circus("restart", "alpa", code=4).stderr
    assert "`first` is an alias of `alpha`" in circus("restart", "first", code=4).stderr
    assert "is running already" in circus("up", str(models_file), "-d", code=1).stderr

    circus("down")
    assert circus.processes() == []
    assert "vllm-circus is not running" in circus("status", code=3).stderr
    assert "is not running" in circus("down").stderr
    assert "is not running" in circus("stop", "alpha", code=3).stderr


def test_circusctl_agrees(circus: Circus, models_file: Path) -> None:
    circus("up", str(models_file), "-d", "--wait")
    pasted = circus("status").stdout.splitlines()[-1]
    assert circus.status()["circusd"]["endpoint"] in pasted
    circusctl = [*shlex.split(pasted), "status"]
    shown = subprocess.run(circusctl, capture_output=True, text=True, check=True, timeout=60).stdout
    assert {line.strip() for line in shown.splitlines()} >= {
        "model-alpha: active",
        "model-beta: active",
        "model-gamma: stopped",
        "proxy: active",
    }


def test_wait_says_which_model_does_not_come_up_and_why(circus: Circus, short_dir: Path, free_port: Port) -> None:
    path = write_models(
        short_dir / "models.yaml", free_port, **{"sim-fail-phase": "weights", "sim-fail-message": "CUDA out of memory"}
    )
    up = circus("up", str(path), "-d", "--wait", code=3)
    assert "error: beta is not ready" in up.stderr
    assert "CUDA out of memory" in up.stderr
    assert "hint: see `vllm-circus logs beta`" in up.stderr
    assert circus.model("alpha")["state"] == "ready"
    await_that(lambda: "CUDA out of memory" in circus("status").stdout)


def test_wait_ends_when_time_is_up(circus: Circus, short_dir: Path, free_port: Port) -> None:
    path = write_models(short_dir / "models.yaml", free_port, **{"sim-hang-phase": "weights"})
    up = circus("up", str(path), "-d", "--wait", "--timeout", "8", code=3)
    assert "not there after 8 s: beta" in up.stderr


def test_a_stop_takes_back_a_start_that_somebody_waits_for(circus: Circus, short_dir: Path, free_port: Port) -> None:
    path = write_models(short_dir / "models.yaml", free_port, **{"sim-hang-phase": "weights"})
    circus("up", str(path), "-d")
    await_that(lambda: circus.model("beta")["state"] == "loading")
    waiting = circus.begin("start", "beta")
    time.sleep(1)  # nothing tells that it waits; if it does not yet, the end is the same
    circus("stop", "beta")
    assert waiting.wait(60) == 3


@pytest.fixture
def following(circus: Circus, models_file: Path) -> subprocess.Popen[str]:
    """`logs -f` of everything, of a running set."""
    circus("up", str(models_file), "-d", "--wait")
    return circus.begin("logs", "-f", "-n", "0")


def test_logs_follow_engines_proxy_and_plugins(circus: Circus, following: subprocess.Popen[str]) -> None:
    circus("restart", "alpha", "--no-wait")
    wait_line(following, "health  | ", "alpha")
    wait_line(following, "alpha   | ", "Application startup complete")
    following.send_signal(signal.SIGINT)
    assert following.wait(30) == 130


def test_logs_choose_parts_and_lines(circus: Circus, models_file: Path) -> None:
    circus("up", str(models_file), "-d", "--wait")
    # ready by what it answers: circusd may not have carried all of what it said to its log yet
    await_that(lambda: "Application startup complete" in circus("logs", "beta", "-n", "all").stdout)
    await_that(lambda: "GET /health" in circus("logs", "beta", "--probes").stdout)
    lines = [json.loads(line) for line in circus("logs", "beta", "--json", "-n", "all").stdout.splitlines()]
    assert {line["part"] for line in lines} == {"beta"}
    assert any("Application startup complete" in line["text"] for line in lines)
    assert circus("logs", "beta", "--grep", "startup complete").stdout.count("\n") == 1
    assert not any("GET /health" in line["text"] for line in lines)
    wanted = {"alpha", "beta", "proxy", "health", "stats", "circusd"}
    await_that(lambda: {line.split(" | ")[0].strip() for line in circus("logs").stdout.splitlines()} >= wanted)


def test_up_in_the_foreground_shows_everything_and_ends_with_ctrl_c(circus: Circus, models_file: Path) -> None:
    up = circus.begin("up", str(models_file))
    wait_line(up, "alpha", "Application startup complete")
    await_that(lambda: circus("status", "--json", code=0) and circus.status()["ready"])
    up.send_signal(signal.SIGINT)
    out, err = up.communicate(timeout=60)
    assert up.returncode == 130
    assert "alpha: ready" in err
    assert "stopped" in err
    assert "instance default has ended" in out
    assert circus.processes() == []


def test_up_in_the_foreground_ends_when_the_set_is_taken_down(circus: Circus, models_file: Path) -> None:
    up = circus.begin("up", str(models_file))
    wait_line(up, "alpha", "Application startup complete")
    circus("down")
    _, err = up.communicate(timeout=60)
    assert up.returncode == 1
    assert "ended by itself" in err


def test_status_goes_on_until_the_set_ends(circus: Circus, models_file: Path) -> None:
    circus("up", str(models_file), "-d", "--wait")
    watching = circus.begin("status", "-w", "--json")
    assert '"ready": true' in wait_line(watching, '"models"')
    circus("stop", "beta", "--no-wait")
    wait_line(watching, '"ready": false')
    circus("down")
    watching.communicate(timeout=60)  # which reads on: nobody ends who cannot get rid of his output
    assert watching.returncode == 3


@pytest.fixture
def by_hand(free_port: Port) -> Iterator[subprocess.Popen[bytes]]:
    """A server that somebody started by hand, and that is none of ours."""
    command = [sys.executable, "-m", "vllm_circus.simulator", "serve", "own/model", "--port", str(free_port())]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    yield process
    process.terminate()
    process.wait(30)


def test_two_instances_live_side_by_side(
    circus: Circus, short_dir: Path, models_file: Path, free_port: Port, by_hand: subprocess.Popen[bytes]
) -> None:
    other = Circus(short_dir, "other")
    other_file = write_models(short_dir / "other.yaml", free_port)
    try:
        circus("up", str(models_file), "-d", "--wait")
        other("up", str(other_file), "-d", "--wait")
        assert circus.status()["proxy"]["port"] != other.status()["proxy"]["port"]
        pids = circus.processes()
        other("down")
        assert other.processes() == []
        assert circus.processes() == pids
        assert ask(circus, "alpha").status_code == 200
        os.kill(circus.status()["circusd"]["pid"], signal.SIGKILL)
        circus("down")
        assert by_hand.poll() is None
    finally:
        other.end()


def test_a_port_of_another_instance_is_a_fault(circus: Circus, short_dir: Path, models_file: Path) -> None:
    circus("up", str(models_file), "-d", "--wait")
    other = Circus(short_dir, "other")
    refused = other("up", str(models_file), "-d", code=2)
    assert f"{models_file}:1: proxy.port" in refused.stderr
    assert other.processes() == []


def test_a_killed_circusd_leaves_nothing_to_the_next_start(circus: Circus, models_file: Path) -> None:
    circus("up", str(models_file), "-d", "--wait")
    os.kill(circus.status()["circusd"]["pid"], signal.SIGKILL)
    circus("up", str(models_file), "-d", "--wait")
    pids = [model["pid"] for model in circus.status()["models"] if model["pid"]]
    assert len(pids) == 2
    assert ask(circus, "alpha").status_code == 200


def test_down_ends_what_a_killed_circusd_left(circus: Circus, models_file: Path) -> None:
    circus("up", str(models_file), "-d", "--wait")
    os.kill(circus.status()["circusd"]["pid"], signal.SIGKILL)
    circus("down")
    assert circus.processes() == []


def test_check_of_the_running_file_finds_no_port_taken(circus: Circus, models_file: Path) -> None:
    circus("up", str(models_file), "-d", "--wait")
    circus("check", str(models_file))
    assert circus("render", "--diff", str(models_file)).stderr == "no difference\n"


def test_a_wrong_file_starts_nothing(circus: Circus, models_file: Path) -> None:
    models_file.write_text("models: [{name: a, modell: x}]\n")
    refused = circus("up", str(models_file), "-d", code=2)
    assert f"error: {models_file}:1: models[0]" in refused.stderr
    assert circus.processes() == []
    assert not (circus.home / "run" / "default" / "circus.ini").exists()


def test_a_circusd_that_somebody_stopped_is_told(circus: Circus, models_file: Path) -> None:
    circus("up", str(models_file), "-d", "--wait")
    before = circus.status()["circusd"]
    assert not before["stopped"]
    os.kill(before["pid"], signal.SIGSTOP)
    try:
        assert f"`kill -CONT {before['pid']}` lets it go on" in circus("status").stdout
        assert circus.status_at_once()["circusd"]["stopped"]
    finally:
        os.kill(before["pid"], signal.SIGCONT)
    assert "kill -CONT" not in circus("status").stdout
