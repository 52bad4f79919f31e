"""A running circusd goes by a circus.ini that was rendered anew, and nothing that runs notices."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.supervise.conftest import Daemon, Start, wait_for
from tests.supervise.engines import SLEEPER
from tests.supervise.plans import bare_files, make_model, make_plan
from vllm_circus.errors import CircusError, NotRunning
from vllm_circus.paths import Instance
from vllm_circus.plan.types import ModelPlan
from vllm_circus.render import write_files
from vllm_circus.supervise.secrets import renew_secrets


def write(instance: Instance, *models: ModelPlan) -> None:
    plan = make_plan(instance, *models)
    write_files(bare_files(plan, autostart=False), instance.run_dir)
    renew_secrets(plan)


def answers(daemon: Daemon) -> dict[str, str] | None:
    """The states of its watchers; None before it can be asked."""
    try:
        return daemon.client.status()
    except NotRunning:
        return None


def test_nothing_is_done_where_nothing_changed(instance: Instance, start: Start) -> None:
    models = (make_model("a"), make_model("b", port=8002))
    daemon = start(make_plan(instance, *models), manual=True)
    wait_for(lambda: answers(daemon))
    write(instance, *models)
    answer = daemon.client.call("refit")
    assert [answer[kind] for kind in ("added", "removed", "replaced", "waiting")] == [[], [], [], []]
    assert daemon.end() == 0


def test_what_is_at_rest_changes_at_once_and_what_runs_when_it_has_ended(instance: Instance, start: Start) -> None:
    daemon = start(make_plan(instance, make_model("a"), make_model("b", port=8002), make_model("c", port=8003)))
    daemon.wait_active("model-a", "model-b", "model-c")
    pids = {name: daemon.pid_of(name) for name in ("model-a", "model-b")}
    changed = make_model("b", (*SLEEPER, "again"), port=8002)
    daemon.client.stop("model-c")
    wait_for(lambda: daemon.client.status()["model-c"] == "stopped")
    write(instance, make_model("a"), changed, make_model("d", port=8004))
    answer = daemon.client.call("refit")
    assert (answer["added"], answer["removed"], answer["waiting"]) == (["model-d"], ["model-c"], ["model-a", "model-b"])
    assert {name: daemon.pid_of(name) for name in pids} == pids
    assert daemon.client.start("model-d")
    daemon.client.stop("model-b")
    wait_for(lambda: daemon.client.status()["model-b"] == "stopped")
    assert daemon.client.call("refit")["replaced"] == ["model-b"]
    daemon.client.start("model-b")
    pid = daemon.pid_of("model-b")
    wait_for(lambda: b"again" in Path(f"/proc/{pid}/cmdline").read_bytes())
    assert daemon.end() == 0
    assert daemon.leftovers() == ()


def test_workers_of_the_proxy_get_the_time_to_end_that_the_new_plan_gives_them(
    instance: Instance, start: Start
) -> None:
    watcher = "[watcher:proxy]\ncmd = sleep 1000\nnumprocesses = {}\ngraceful_timeout = {}\n"
    plan = make_plan(instance, make_model("a"))
    daemon = start(plan, manual=True, extra=watcher.format(1, 7))
    pid = daemon.pid_of("proxy")
    instance.ini.write_text(instance.ini.read_text().replace(watcher.format(1, 7), watcher.format(2, 95)))
    daemon.client.call("refit")
    assert daemon.client.call("options", name="proxy")["options"]["graceful_timeout"] == 95
    assert daemon.pid_of("proxy") == pid
    assert daemon.end() == 0


def test_an_ini_that_cannot_be_read_changes_nothing(instance: Instance, start: Start) -> None:
    daemon = start(make_plan(instance, make_model("a")))
    daemon.wait_active("model-a")
    instance.ini.write_text("[watcher:model-x\ncmd = ")
    with pytest.raises(CircusError, match="could not load"):
        daemon.client.call("refit")
    assert daemon.client.status() == {"model-a": "active"}
    assert daemon.end() == 0


def test_circus_own_way_of_reading_it_again_is_refused(instance: Instance, start: Start) -> None:
    daemon = start(make_plan(instance, make_model("a")))
    daemon.wait_active("model-a")
    with pytest.raises(CircusError, match="vllm-circus reload"):
        daemon.client.call("reloadconfig")
    assert daemon.end() == 0


def test_engines_that_run_keep_their_keys(instance: Instance, start: Start) -> None:
    daemon = start(make_plan(instance, make_model("a")))
    daemon.wait_active("model-a")
    before = (instance.secrets / "a.json").read_text()
    write(instance, make_model("a"), make_model("b", port=8002))
    assert (instance.secrets / "a.json").read_text() == before
    assert (instance.secrets / "b.json").stat().st_mode & 0o777 == 0o600
    assert (instance.secrets / "b.json").read_text() != before
    assert daemon.end() == 0
