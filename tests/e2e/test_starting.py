"""Starts that are broken off, and starts that meet each other."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.e2e.conftest import Circus, await_that

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]


@pytest.mark.parametrize("options", [(), ("-d",)])
def test_a_start_that_is_broken_off_leaves_nothing(circus: Circus, models_file: Path, options: tuple[str, ...]) -> None:
    starting = circus.begin("up", str(models_file), *options)
    lock = circus.home / "run/default/lock"
    await_that(lambda: lock.exists() and lock.read_text().strip())
    starting.send_signal(signal.SIGINT)
    starting.communicate(timeout=60)
    assert starting.returncode == 130
    assert "not running" in circus("status", code=3).stderr
    assert circus.processes() == []


def test_of_two_starts_at_once_one_wins_and_the_other_names_it(circus: Circus, models_file: Path) -> None:
    starts = [circus.begin("up", str(models_file), "-d") for _ in range(2)]
    ends = {start.wait(60): start.communicate()[1] for start in starts}
    assert set(ends) == {0, 1}
    pid = int((circus.home / "run/default/lock").read_text())
    assert f"{pid}" in ends[1]
    assert "run" in ends[1]
    assert "INFO" not in ends[1]


def test_an_engine_on_a_unix_socket_comes_back_after_a_kill(circus: Circus, models_file: Path) -> None:
    text = models_file.read_text()
    models_file.write_text(text.replace("sim/alpha,", "sim/alpha, env: {VLLM_SERVER_DEV_MODE: '1'},"))
    circus("up", str(models_file), "-d", "--wait")
    before = circus.model("alpha")["pid"]
    signal_group(before)
    await_that(lambda: (now := circus.model("alpha"))["state"] == "ready" and now["pid"] != before, 30)


def test_a_killed_worker_leaves_no_socket(circus: Circus, models_file: Path) -> None:
    circus("up", str(models_file), "-d", "--wait")
    run = circus.home / "run/default"

    def sockets() -> list[Path]:
        return list(run.glob("proxy-*.sock"))

    await_that(sockets)
    (before,) = sockets()
    worker = int(before.stem.removeprefix("proxy-"))
    os.kill(worker, signal.SIGKILL)
    await_that(lambda: len(sockets()) == 1 and sockets() != [before], 30)
    assert f"WARNING proxy: process {worker} ended by SIGKILL\n" in circus("logs", "circusd").stdout
    circus("down")
    assert circus("logs", "circusd").stdout.count("WARNING proxy: process") == 1


def signal_group(pid: int) -> None:
    """As the kernel does when memory is short: the engine goes, its socket stays."""

    os.killpg(pid, signal.SIGKILL)
