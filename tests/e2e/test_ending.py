"""What an end leaves to read: an orderly one nothing, a violent one that there was one."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.e2e.conftest import Circus, await_that

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]


def test_an_orderly_end_with_models_running_leaves_no_error_in_any_log(circus: Circus, models_file: Path) -> None:
    circus("up", str(models_file), "-d", "--wait")
    circus("down")
    for log in (circus.home / "log/default").glob("*.log"):
        assert "ERROR" not in log.read_text(), f"{log.name}:\n{log.read_text()}"


def test_workers_that_end_at_their_start_are_explained(circus: Circus, models_file: Path) -> None:
    keys = models_file.with_name("keys")
    keys.write_text("sk-1\n")
    keys.chmod(0o600)
    models_file.write_text(models_file.read_text().replace("proxy: {", "proxy: {keys: {file: keys}, "))
    circus("up", str(models_file), "-d", "--wait")
    assert "proxy: " not in circus("status").stdout
    keys.chmod(0o644)  # a worker that comes later refuses it
    (worker,) = circus.status()["proxy"]["workers"]
    os.kill(worker["pid"], signal.SIGKILL)
    words = f"proxy: 0 of 1 worker alive; error: the file of API keys {keys} can be read by others (mode 0644); chmod"
    await_that(lambda: words in circus("status").stdout, 30)


def test_the_end_of_a_killed_circusd_is_told_until_the_next_start(circus: Circus, models_file: Path) -> None:
    circus("up", str(models_file), "-d")
    pid = int((circus.home / "run/default/lock").read_text())
    os.kill(pid, signal.SIGKILL)
    await_that(lambda: not circus.processes(), 30)
    told = circus("status", code=3).stderr
    assert f"is not running: circusd (process {pid}, since 20" in told
    assert "was killed or died; the last word of its set is of 20" in told
    assert f"the last circusd (process {pid}" in circus("up", str(models_file), "-d").stderr
    assert f"WARNING the last circusd (process {pid}" in (circus.home / "log/default/circusd.log").read_text()
    circus("down")
    assert circus("status", code=3).stderr.startswith("error: vllm-circus is not running\n")
