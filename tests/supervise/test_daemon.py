"""The life of a set: start, commands, crashes, the end; with real processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.supervise.conftest import Start, is_gone, session_of, wait_for
from tests.supervise.engines import CRASHER, DEAF, LEAVER, PARENT, SLEEPER, TELLER, TIDY, python
from tests.supervise.plans import make_model, make_plan
from vllm_circus.errors import CircusError
from vllm_circus.paths import MARK, Instance
from vllm_circus.supervise.journal import read_sessions
from vllm_circus.supervise.lock import lock_holder


def test_a_set_starts_and_ends_without_leaving_anything(instance: Instance, start: Start) -> None:
    daemon = start(make_plan(instance, make_model("a"), make_model("b")))
    daemon.wait_active("model-a", "model-b")
    pids = [daemon.pid_of("model-a"), daemon.pid_of("model-b")]
    assert lock_holder(instance) == daemon.process.pid
    assert daemon.end() == 0
    assert all(map(is_gone, pids))
    assert lock_holder(instance) is None
    assert {path.name for path in instance.run_dir.iterdir()} == {"circus.ini", "plan.json", "lock"}


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_every_signal_that_asks_for_the_end_ends_the_set(instance: Instance, start: Start, signum: int) -> None:
    daemon = start(make_plan(instance, make_model("a")))
    daemon.wait_active("model-a")
    assert daemon.end(signum) == 0


def test_quit_ends_the_set(instance: Instance, start: Start) -> None:
    daemon = start(make_plan(instance, make_model("a")))
    daemon.wait_active("model-a")
    pid = daemon.pid_of("model-a")
    daemon.client.quit()
    assert daemon.process.wait(20) == 0
    assert is_gone(pid)


def test_circusctl_gets_its_answer_to_quit(instance: Instance, start: Start) -> None:
    daemon = start(make_plan(instance, make_model("a")))
    daemon.wait_active("model-a")
    command = (sys.executable, "-m", "circus.circusctl", "--endpoint", instance.control, "quit", "--waiting")
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "ok")
    assert daemon.process.wait(20) == 0


def test_models_are_started_and_stopped_by_command(instance: Instance, start: Start) -> None:
    daemon = start(make_plan(instance, make_model("a")), manual=True)
    wait_for(lambda: lock_holder(instance))
    wait_for(lambda: instance.run_dir.joinpath("control.sock").exists())
    assert daemon.client.status() == {"model-a": "stopped"}
    (pid,) = daemon.client.start("model-a")
    assert daemon.client.pids("model-a") == [pid]
    assert daemon.client.start("model-a") == []
    daemon.client.stop("model-a")
    wait_for(lambda: daemon.client.status() == {"model-a": "stopped"})
    assert is_gone(pid)


def test_a_process_leads_its_session_and_gets_its_environment(instance: Instance, start: Start) -> None:
    env = (("CUDA_VISIBLE_DEVICES", "1"), ("PRICE", "$5 ((circus.wid)) ;"), ("EMPTY", ""))
    model = replace(make_model("a", TELLER), env=env)
    daemon = start(make_plan(instance, model), env={"ODD": "$UNDEFINED", "PLAIN": "1"})
    told = json.loads(daemon.wait_log("a", "{"))
    assert told["sid"] == told["pid"]
    seen = told["env"]
    assert {name: seen[name] for name, _ in env} == dict(env)
    assert seen[MARK] == str(instance.run_dir)
    assert len(seen["VLLM_API_KEY"]) >= 32
    assert seen["VLLM_API_KEY"] not in instance.ini.read_text() + instance.plan.read_text()
    assert (seen["ODD"], seen["PLAIN"]) == ("$UNDEFINED", "1")
    assert not {"__name__", "VLLM_CIRCUS_PARENT"} & set(seen)


def test_sighup_is_ignored_and_said(instance: Instance, start: Start) -> None:
    daemon = start(make_plan(instance, make_model("a")))
    daemon.wait_active("model-a")
    pid = daemon.pid_of("model-a")
    daemon.process.send_signal(signal.SIGHUP)
    daemon.wait_log("circusd", "SIGHUP ignored")
    assert daemon.pid_of("model-a") == pid
    assert daemon.end() == 0


def test_a_second_start_is_refused_and_says_who_runs(instance: Instance, start: Start) -> None:
    plan = make_plan(instance, make_model("a"))
    first = start(plan)
    first.wait_active("model-a")
    pid = first.pid_of("model-a")
    second = start(plan)
    _, words = second.process.communicate(timeout=30)
    assert second.process.returncode == 1
    assert f"runs already: process {first.process.pid}, since " in words
    assert first.pid_of("model-a") == pid
    assert first.end() == 0


def test_two_instances_live_side_by_side(instance: Instance, start: Start) -> None:
    other = replace(instance, name="two", run_dir=instance.run_dir.with_name("two"))
    first, second = start(make_plan(instance, make_model("a"))), start(make_plan(other, make_model("a")))
    first.wait_active("model-a")
    second.wait_active("model-a")
    survivor = second.pid_of("model-a")
    assert first.end() == 0
    assert not is_gone(survivor)
    assert second.end() == 0


def test_a_sigterm_while_circus_holds_its_lock_is_not_lost(instance: Instance, start: Start) -> None:
    daemon = start(make_plan(instance, make_model("slow", DEAF, stop_timeout=2.0), make_model("b")))
    daemon.wait_active("model-slow", "model-b")
    daemon.wait_log("slow", "deaf")
    pids = [daemon.pid_of("model-slow"), daemon.pid_of("model-b")]
    daemon.client.stop("model-slow")
    assert daemon.client.status()["model-slow"] == "stopping"
    assert daemon.end() == 0
    assert all(map(is_gone, pids))


def test_a_restart_under_way_does_not_outlive_the_end(instance: Instance, start: Start) -> None:
    daemon = start(make_plan(instance, make_model("slow", DEAF, stop_timeout=1.0)))
    daemon.wait_active("model-slow")
    daemon.wait_log("slow", "deaf")
    daemon.client.call("restart", name="model-slow")
    assert daemon.end() == 0
    assert daemon.leftovers() == ()


def test_a_second_sigterm_does_no_harm(instance: Instance, start: Start) -> None:
    daemon = start(make_plan(instance, make_model("slow", DEAF, stop_timeout=1.5)))
    daemon.wait_active("model-slow")
    daemon.wait_log("slow", "deaf")
    pid = daemon.pid_of("model-slow")
    daemon.process.send_signal(signal.SIGTERM)
    daemon.wait_log("circusd", "stopping")
    assert daemon.end() == 0
    assert is_gone(pid)


@pytest.mark.parametrize("moment", [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.3])
def test_a_sigterm_at_any_moment_of_the_start_leaves_nothing(instance: Instance, start: Start, moment: float) -> None:
    daemon = start(make_plan(instance, make_model("a"), make_model("b", DEAF, stop_timeout=1.0)))
    with pytest.raises(subprocess.TimeoutExpired):
        daemon.process.wait(moment)  # the moment is what is tested; nothing to wait for happens before it
    assert daemon.end() in {0, -signal.SIGTERM}  # the latter before the program had begun
    assert daemon.leftovers() == ()
    assert lock_holder(instance) is None


def test_commands_that_would_start_something_are_refused_at_the_end(instance: Instance, start: Start) -> None:
    daemon = start(make_plan(instance, make_model("slow", DEAF, stop_timeout=2.0), make_model("b")))
    daemon.wait_active("model-slow", "model-b")
    daemon.wait_log("slow", "deaf")
    daemon.process.send_signal(signal.SIGTERM)
    wait_for(lambda: daemon.client.status()["model-b"] == "stopped")
    with pytest.raises(CircusError, match="everything is being stopped"):
        daemon.client.start("model-b")
    assert daemon.process.wait(20) == 0


@pytest.mark.parametrize(("command", "properties"), [("reload", {}), ("reload", {"name": "model-a"}), ("restart", {})])
def test_what_would_start_a_second_engine_is_refused(
    instance: Instance, start: Start, command: str, properties: dict[str, str]
) -> None:
    daemon = start(make_plan(instance, make_model("a")))
    daemon.wait_active("model-a")
    pid = daemon.pid_of("model-a")
    with pytest.raises(CircusError, match="beside running ones"):
        daemon.client.call(command, **properties)
    assert daemon.pid_of("model-a") == pid
    assert daemon.end() == 0


@pytest.mark.parametrize(
    ("command", "properties"),
    [
        ("rm", {"name": "model-a"}),
        ("add", {"name": "model-b", "cmd": "sleep 60", "start": True}),
        ("set", {"name": "Model-A", "options": {"respawn": True}}),
    ],
)
def test_what_the_models_file_says_is_not_changed_behind_its_back(
    instance: Instance, start: Start, command: str, properties: dict[str, object]
) -> None:
    daemon = start(make_plan(instance, make_model("a")))
    daemon.wait_active("model-a")
    with pytest.raises(CircusError, match="edit the models file"):
        daemon.client.call(command, **properties)
    assert daemon.client.status() == {"model-a": "active"}
    assert daemon.client.call("options", name="model-a")["options"]["respawn"] is False
    assert daemon.end() == 0


def test_a_set_whose_run_directory_was_removed_ends_by_itself(instance: Instance, start: Start) -> None:
    daemon = start(make_plan(instance, make_model("a")))
    daemon.wait_active("model-a")
    pid = daemon.pid_of("model-a")
    shutil.rmtree(instance.run_dir)
    assert daemon.process.wait(30) == 1
    assert is_gone(pid)
    assert daemon.leftovers() == ()
    assert any("was removed: nobody can reach" in line for line in daemon.log("circusd"))


def test_a_model_starts_although_the_state_directory_was_removed(instance: Instance, start: Start) -> None:
    daemon = start(make_plan(instance, make_model("a")))
    daemon.wait_active("model-a")
    shutil.rmtree(instance.state_dir)
    daemon.client.call("restart", name="model-a", waiting=True)
    daemon.wait_active("model-a")
    assert instance.state_dir.is_dir()
    assert daemon.end() == 0


def test_a_killed_leader_takes_its_session_with_it(instance: Instance, start: Start) -> None:
    daemon = start(make_plan(instance, make_model("a", PARENT)))
    child = int(daemon.wait_log("a", ""))
    leader = daemon.pid_of("model-a")
    assert {leader, child} <= session_of(leader)
    os.kill(leader, signal.SIGKILL)
    wait_for(lambda: not session_of(leader), 5)
    wait_for(lambda: daemon.client.status() == {"model-a": "stopped"})
    assert daemon.end() == 0


@pytest.mark.parametrize("command", ["stop", "restart"])
def test_a_model_that_is_stopped_leaves_no_child(instance: Instance, start: Start, command: str) -> None:
    daemon = start(make_plan(instance, make_model("a", PARENT)))
    child = int(daemon.wait_log("a", ""))
    leader = daemon.pid_of("model-a")
    daemon.client.call(command, name="model-a")
    wait_for(lambda: not session_of(leader), 10)
    assert is_gone(child)
    assert daemon.end() == 0


def test_children_that_ignore_the_end_go_with_their_leader(instance: Instance, start: Start) -> None:
    daemon = start(make_plan(instance, make_model("a", PARENT)))
    child = int(daemon.wait_log("a", ""))
    assert daemon.end() == 0
    assert is_gone(child)


def test_a_process_that_left_its_session_is_ended_with_the_set(instance: Instance, start: Start) -> None:
    daemon = start(make_plan(instance, make_model("a", LEAVER)))
    runaway = int(daemon.wait_log("a", ""))
    assert daemon.end() == 0
    assert is_gone(runaway)
    assert "killed 1 processes" in daemon.wait_log("circusd", "left at the end")


def test_the_last_words_of_a_crash_are_in_the_log(instance: Instance, start: Start) -> None:
    daemon = start(make_plan(instance, make_model("a", CRASHER)))
    daemon.wait_log("a", "the reason")
    wait_for(lambda: daemon.client.status() == {"model-a": "stopped"})
    lines = daemon.log("a")
    assert [line for line in lines if line.startswith("line")] == [f"line {n}" for n in range(3000)]
    assert daemon.end() == 0


def test_a_program_that_is_not_there_says_so_in_its_log(instance: Instance, start: Start) -> None:
    daemon = start(make_plan(instance, make_model("a", ("/nowhere/vllm", "serve"))))
    assert daemon.wait_log("a", "no such program") == "vllm-circus: /nowhere/vllm: no such program"
    wait_for(lambda: daemon.client.status() == {"model-a": "stopped"})
    assert daemon.end() == 0


def test_a_taken_port_is_a_plain_error(instance: Instance, start: Start, free_port: Callable[[], int]) -> None:
    with socket.create_server(("127.0.0.1", free_port())) as taken:
        port = taken.getsockname()[1]
        extra = f"[socket:proxy]\nhost = 127.0.0.1\nport = {port}\n"
        daemon = start(make_plan(instance, make_model("a"), port=port), extra=extra)
        _, words = daemon.process.communicate(timeout=30)
    assert daemon.process.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in words
    assert "Traceback" not in words
    assert daemon.leftovers() == ()


@pytest.mark.parametrize(
    "option", ["hooks.before_start = no.such.module.hook", "stdout_stream.class = no.such.Stream", "max_retry = many"]
)
def test_a_watcher_that_circus_cannot_load_ends_the_start(instance: Instance, start: Start, option: str) -> None:
    extra = f"[watcher:broken]\ncmd = /bin/sleep 600\n{option}\n"
    daemon = start(make_plan(instance, make_model("a")), extra=extra)
    _, words = daemon.process.communicate(timeout=30)
    assert daemon.process.returncode == 1
    assert "error: circus could not load" in words
    assert daemon.leftovers() == ()


def test_the_front_drains_before_any_model_is_told(
    instance: Instance, start: Start, free_port: Callable[[], int]
) -> None:
    log = instance.log("front")
    stream = "".join(
        f"stdout_stream.{key} = {value}\n"
        for key, value in (("class", "vllm_circus.supervise.stream.LogStream"), ("filename", log))
    )
    script = instance.run_dir.parent.parent / "tell.py"
    script.write_text(TIDY)
    extra = (
        f"[socket:proxy]\nhost = 127.0.0.1\nport = {free_port()}\n"
        f"[watcher:front]\ncmd = {sys.executable} {script} 1\nuse_sockets = True\ncopy_env = True\n{stream}"
    )
    daemon = start(make_plan(instance, make_model("a", python(TIDY, "0"))), extra=extra)
    daemon.wait_log("front", "up")
    daemon.wait_log("a", "up")
    assert daemon.end() == 0
    stamps = {
        (part, line.split()[-1]): line.split()[0]
        for part in ("front", "a")
        for line in instance.log(part).read_text().splitlines()
    }
    assert stamps["front", "told"] < stamps["front", "done"] <= stamps["a", "told"]


def test_a_stopped_process_is_killed_after_its_grace(instance: Instance, start: Start) -> None:
    daemon = start(make_plan(instance, make_model("a", SLEEPER, stop_timeout=1.0)))
    pid = daemon.pid_of("model-a")
    os.kill(pid, signal.SIGSTOP)
    assert daemon.end() == 0
    assert is_gone(pid)


def test_a_plugin_dies_with_circusd_and_leads_a_journaled_session(instance: Instance, start: Start) -> None:
    told = instance.run_dir.parent.parent / "told"
    extra = f"[plugin:telling]\nuse = tests.supervise.plugin.TellingPlugin\nsettings = {told}\n"
    daemon = start(make_plan(instance), extra=extra)
    pid = int(wait_for(lambda: told.exists() and told.read_text()))
    assert pid == daemon.pid_of("plugin:telling")
    assert pid in {session.leader for session in read_sessions(instance.sessions)}
    daemon.process.kill()
    wait_for(lambda: is_gone(pid), 5)


def test_a_folder_that_is_in_the_way_is_a_plain_error(instance: Instance, start: Start) -> None:
    instance.state_dir.parent.write_text("not a folder")
    daemon = start(make_plan(instance, make_model("a")))
    _, words = daemon.process.communicate(timeout=30)
    assert daemon.process.returncode == 1
    assert words.startswith(f"error: {instance.state_dir}: ")
    assert "Traceback" not in words


def test_engines_may_open_as_many_files_as_the_machine_allows(instance: Instance, start: Start) -> None:
    daemon = start(make_plan(instance, make_model("a", ("/bin/sh", "-c", "ulimit -Sn; ulimit -Hn"))))
    wait_for(lambda: len(daemon.log("a")) == 2)
    soft, hard = daemon.log("a")
    assert soft == hard or int(soft) == 1 << 20
    assert daemon.end() == 0
