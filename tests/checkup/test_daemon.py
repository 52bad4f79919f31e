"""circusd, its plugins and watchers, and what a killed set leaves."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.checkup.conftest import TWO_MODELS, MakePlan
from vllm_circus.bus.messages import CountsMessage, ModelsMessage, WorkerState
from vllm_circus.checkup import run
from vllm_circus.checkup.daemon import (
    check_circusd,
    check_leftovers,
    check_plan,
    check_plugins,
    check_watchers,
    judge_difference,
)
from vllm_circus.checkup.findings import Verdict
from vllm_circus.checkup.patience import Answer
from vllm_circus.checkup.running import Check
from vllm_circus.checkup.scene import Scene
from vllm_circus.errors import NotRunning
from vllm_circus.paths import MARK, Instance
from vllm_circus.render import render_files
from vllm_circus.supervise.lock import hold_lock

NOW = 1_000_000.0


def models_at(sent_at: float) -> ModelsMessage:
    return ModelsMessage(sent_at, 11, 1, ())


def counts_at(sent_at: float, workers: int = 1) -> CountsMessage:
    living = tuple(WorkerState(number, 1, 0, sent_at) for number in range(workers))
    return CountsMessage(sent_at, 12, {}, {}, {}, {}, living, ())


@pytest.fixture
def running(scene: Scene, plan_of: MakePlan) -> Scene:
    """A set of two models that runs, and of which everything is well."""
    plan = plan_of(TWO_MODELS)
    scene.instance.run_dir.mkdir(parents=True)
    for file in render_files(plan):
        (scene.instance.run_dir / file.name).write_bytes(file.content)
    names = ("model-a", "model-b", "proxy", "plugin:health", "plugin:stats")
    return replace(
        scene,
        daemon=os.getpid(),
        running=plan,
        planned=Answer(plan),
        watchers=Answer(dict.fromkeys(names, "active")),
        models=models_at(NOW),
        counts=counts_at(NOW),
        heard_at=NOW,
    )


def test_a_set_that_runs_well_has_nothing_wrong(running: Scene) -> None:
    found = [*check_circusd(running), *check_plugins(running), *check_watchers(running)]
    assert [each.verdict for each in found] == [Verdict.OK] * 3


def test_nothing_that_runs_is_a_note(scene: Scene) -> None:
    (found,) = check_circusd(scene)
    assert (found.verdict, found.fix) == (Verdict.NOTE, "`vllm-circus up -d` starts the set")
    assert not [*check_plugins(scene), *check_watchers(scene), *check_plan(scene)]


def test_the_file_that_was_named_is_started_and_what_runs_is_started_anew(running: Scene, tmp_path: Path) -> None:
    named = replace(running, named=tmp_path / "low.yaml")
    assert named.start == "`vllm-circus up -d`"
    assert replace(named, daemon=None).start == f"`vllm-circus up -d {tmp_path}/low.yaml`"


def test_other_instances_that_run_are_named(scene: Scene) -> None:
    other = replace(scene.instance, name="other", run_dir=scene.instance.run_dir.with_name("other"))
    with hold_lock(other):
        (found,) = check_circusd(scene)
    assert "what runs is `--instance other`" in found.what


def test_a_circusd_that_does_not_answer_is_a_fault(running: Scene) -> None:
    for answer in (Answer[dict[str, str]](late=True), Answer[dict[str, str]](error=NotRunning("nobody answers"))):
        (found,) = check_circusd(replace(running, watchers=answer))
        assert found.verdict is Verdict.FAULT
        assert "`vllm-circus down`" in found.fix


def test_a_stopped_circusd_is_told_how_to_go_on(running: Scene) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        process.send_signal(19)  # SIGSTOP
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        (found,) = check_circusd(replace(running, daemon=process.pid, watchers=Answer(late=True)))
        process.send_signal(18)  # SIGCONT
        process.communicate(b"\n")
    assert "somebody stopped it" in found.what
    assert found.fix == f"`kill -CONT {process.pid}` lets it go on"


def test_a_lock_of_somebody_else_is_a_fault(scene: Scene) -> None:
    (found,) = check_circusd(replace(scene, lock_error="belongs to another user"))
    assert found.verdict is Verdict.FAULT


def test_a_silent_plugin_is_a_fault_whatever_circus_says(running: Scene) -> None:
    (found,) = check_plugins(replace(running, models=models_at(NOW - 10)))
    assert found.verdict is Verdict.FAULT
    assert "health said its last word 10s ago, so models are not looked after" in found.what
    (found,) = check_plugins(replace(running, counts=None))
    assert "stats says nothing, so nothing is counted" in found.what


def test_watchers_that_differ_from_what_was_rendered_are_told(running: Scene) -> None:
    told = dict(running.watchers.value or {})
    del told["model-a"]
    told |= {"intruder": "active", "proxy": "stopped"}
    found = list(check_watchers(replace(running, watchers=Answer(told))))
    assert [(each.verdict, each.what) for each in found] == [
        (Verdict.FAULT, "circusd has no watcher model-a, which was rendered"),
        (Verdict.WARNING, "circusd has a watcher intruder that was not rendered"),
        (Verdict.FAULT, "the watcher proxy is stopped: somebody used circusctl"),
    ]


def test_proxy_workers_that_are_missing_are_told(running: Scene, plan_of: MakePlan) -> None:
    plan = plan_of(TWO_MODELS.replace("127.0.0.1}", "127.0.0.1, workers: 2}"))
    for living, verdict in ((0, Verdict.FAULT), (1, Verdict.WARNING), (2, Verdict.OK)):
        (found,) = check_watchers(replace(running, running=plan, counts=counts_at(NOW, living)))
        assert found.verdict is verdict


def test_a_changed_models_file_is_told_with_what_changed(running: Scene, plan_of: MakePlan) -> None:
    old = plan_of(TWO_MODELS)
    new = plan_of(TWO_MODELS.replace("name: b, model: org/b", "name: c, model: org/c"))
    found = judge_difference(running, old, new)
    assert found.verdict is Verdict.NOTE
    assert "c is new, b is gone" in found.what
    assert "`vllm-circus reload`" in found.fix
    assert judge_difference(running, old, old).verdict is Verdict.OK


def test_what_only_a_new_start_applies_is_told_as_that(running: Scene) -> None:
    old = running.running
    assert old is not None
    moved = replace(old, proxy=replace(old.proxy, port=old.proxy.port + 1))
    found = judge_difference(running, old, moved)
    assert found.what.endswith("differ: the proxy's port changed")
    assert found.fix == f"only `vllm-circus down`, then {running.start} apply port"
    both = replace(moved, proxy=replace(moved.proxy, metrics=not old.proxy.metrics))
    fix = judge_difference(running, old, both).fix
    assert "`vllm-circus reload` applies it; only `vllm-circus down`" in fix


def test_a_reload_is_not_advised_that_would_be_refused(running: Scene) -> None:
    old = running.running
    assert old is not None
    first = old.models[0]
    engine = replace(first, endpoint=replace(first.endpoint, port=old.proxy.port))
    moved = replace(old, proxy=replace(old.proxy, port=old.proxy.port + 1), models=(engine, *old.models[1:]))
    found = judge_difference(running, old, moved)
    assert found.what.endswith(f"{first.name} is to have the port of the running proxy")
    assert found.fix == f"`vllm-circus down`, then {running.start}"


def test_a_models_file_that_is_gone_is_told(running: Scene) -> None:
    assert running.running is not None
    (found,) = check_plan(replace(running, running=replace(running.running, source="/gone/models.yaml")))
    assert found.verdict is Verdict.WARNING


def test_a_plan_that_cannot_be_read_is_a_fault(running: Scene) -> None:
    (found,) = check_plan(replace(running, running=None))
    assert found.verdict is Verdict.FAULT


def test_a_stale_run_directory_is_told(instance: Instance) -> None:
    instance.run_dir.mkdir(parents=True)
    instance.pidfile.write_text("1\n")
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(instance.control.removeprefix("ipc://"))
    checks = (Check("A", "circusd", check_circusd), Check("A", "leftovers", check_leftovers))
    fallen, stale = run(instance, environ={}, checks=checks)
    assert fallen.verdict is Verdict.WARNING
    assert fallen.what.startswith("nothing runs: the last circusd (process 1, since ")
    assert stale.verdict is Verdict.NOTE
    assert "holds what a killed set left: control.sock, circusd.pid" in stale.what


def test_processes_that_a_killed_set_left_are_told(scene: Scene) -> None:
    environ = {**os.environ, MARK: str(scene.instance.run_dir)}
    with subprocess.Popen(
        [sys.executable, "-c", "print(1, flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environ,
    ) as left:
        assert left.stdout is not None
        left.stdout.readline()
        (found,) = check_leftovers(scene)
        left.communicate(b"\n")
    assert found.verdict is Verdict.WARNING
    assert found.what == f"1 process of an earlier set still live: {left.pid}"
    assert "`vllm-circus down`" in found.fix


def test_crashes_of_our_own_are_told(scene: Scene, short_dir: Path) -> None:
    folder = scene.instance.state_dir
    folder.mkdir(parents=True)
    for name in ("crash-20260101T000000-1.txt", "crash-20260301T000000-1.txt"):
        (folder / name).touch()
    (found,) = check_leftovers(scene)
    assert found.verdict is Verdict.NOTE
    assert found.what.endswith(f"the last {folder}/crash-20260301T000000-1.txt")
