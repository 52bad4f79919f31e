"""Starting and stopping a daemon from another process."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.supervise.conftest import Start, is_gone
from tests.supervise.engines import DEAF, TIDY, python
from tests.supervise.plans import make_model, make_plan
from vllm_circus.errors import CircusError, NotRunning
from vllm_circus.paths import Instance
from vllm_circus.supervise.control import running_pid, spawn_daemon, stop_daemon
from vllm_circus.supervise.lock import find_fallen


def test_stopping_what_does_not_run_is_said(instance: Instance) -> None:
    with pytest.raises(NotRunning, match="does not run"):
        stop_daemon(instance)


def test_stopping_returns_when_all_is_gone(instance: Instance, start: Start) -> None:
    daemon = start(make_plan(instance, make_model("a")))
    pid = daemon.pid_of("model-a")
    assert running_pid(instance) == daemon.process.pid
    stop_daemon(instance)
    assert is_gone(pid)
    assert is_gone(daemon.process.pid)
    assert running_pid(instance) is None
    assert daemon.process.wait(5) == 0


def test_a_daemon_that_does_not_end_is_killed_and_swept(instance: Instance, start: Start) -> None:
    daemon = start(make_plan(instance, make_model("a", DEAF)))
    pid = daemon.pid_of("model-a")
    daemon.wait_log("a", "deaf")
    os.kill(daemon.process.pid, signal.SIGSTOP)
    said: list[str] = []
    stop_daemon(instance, timeout=0.5, progress=said.append)
    assert is_gone(pid)
    assert running_pid(instance) is None
    assert any("killing it" in text for text in said)
    assert find_fallen(instance) is None  # it did not die: it was told to end
    assert not instance.secrets.exists()


def test_a_daemon_that_somebody_stopped_goes_on_to_end_in_order(instance: Instance, start: Start) -> None:
    daemon = start(make_plan(instance, make_model("a", python(TIDY, "0"))))
    daemon.wait_log("a", "up")
    os.kill(daemon.process.pid, signal.SIGSTOP)  # as Ctrl-Z does with one in the foreground
    said: list[str] = []
    stop_daemon(instance, timeout=15, progress=said.append)
    assert said == []
    assert daemon.process.wait(5) == 0
    assert "done" in instance.log("a").read_text()


def test_a_daemon_that_cannot_start_is_quoted(
    instance: Instance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_CIRCUS_HOME", str(instance.run_dir.parent.parent))
    (tmp_path / "models.yaml").write_text("models: []\n")
    with pytest.raises(CircusError, match=r"circusd did not start: \S+models\.yaml:1: ") as failed:
        spawn_daemon(instance, tmp_path / "models.yaml")
    assert str(instance.log("circusd")) in failed.value.hint
    assert running_pid(instance) is None


@pytest.mark.parametrize(("host", "words"), [("203.0.113.7", "assign requested address"), ("nowhere.invalid", "name ")])
def test_an_address_that_is_not_ours_is_told_in_one_line(
    host: str,
    words: str,
    instance: Instance,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    free_port: Callable[[], int],
) -> None:
    port = free_port()
    monkeypatch.setenv("VLLM_CIRCUS_HOME", str(instance.run_dir.parent.parent))
    path = tmp_path / "models.yaml"
    path.write_text(f"proxy: {{host: {host}, port: {port}}}\nmodels: [{{name: a, model: sim/a, engine: simulator}}]\n")
    with pytest.raises(CircusError) as failed:
        spawn_daemon(instance, path)
    assert "\n" not in str(failed.value)
    assert f"cannot listen on {host}:{port}" in str(failed.value)
    assert words in str(failed.value).lower()
    assert failed.value.hint.startswith("`proxy.host` is to be one of this machine's")
