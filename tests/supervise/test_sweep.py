"""What a killed circusd leaves behind is found and ended, and nothing else is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from tests.supervise.conftest import ROOT, Start, is_gone, session_of, wait_for
from tests.supervise.engines import DEAF, LEAVER, PARENT, SLEEPER
from tests.supervise.plans import make_model, make_plan
from vllm_circus.paths import MARK, Instance
from vllm_circus.supervise.control import clear_leftovers
from vllm_circus.supervise.journal import Session, read_sessions, record_session, write_sessions
from vllm_circus.supervise.lock import hold_lock
from vllm_circus.supervise.proc import boot_id, read_process
from vllm_circus.supervise.sweep import end_leftovers, end_lost, find_leftovers

Spawn = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def spawn(instance: Instance) -> Iterator[Spawn]:
    """Starts processes in sessions of their own; whatever is left of those is killed at the end."""
    instance.run_dir.mkdir(parents=True)
    started: list[subprocess.Popen[bytes]] = []

    def begin(command: tuple[str, ...], **environ: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            command, env=os.environ | environ, start_new_session=True, stdout=subprocess.PIPE, cwd="/"
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        for pid in session_of(process.pid):
            os.kill(pid, signal.SIGKILL)
        process.communicate()


def first_line(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().decode().strip()


def found(instance: Instance) -> set[int]:
    return {process.pid for process in find_leftovers(instance)}


def test_a_marked_process_is_found_whatever_its_session(instance: Instance, spawn: Spawn) -> None:
    ours = spawn(SLEEPER, **{MARK: str(instance.run_dir)})
    assert found(instance) == {ours.pid}


def test_another_instances_mark_is_not_ours(instance: Instance, spawn: Spawn) -> None:
    spawn(SLEEPER, **{MARK: f"{instance.run_dir}2"})
    assert found(instance) == set()


def test_a_process_with_the_same_command_line_is_not_ours(instance: Instance, spawn: Spawn) -> None:
    spawn(SLEEPER)
    ours = spawn(SLEEPER, **{MARK: str(instance.run_dir)})
    assert found(instance) == {ours.pid}


def test_a_journaled_session_is_ours_without_a_mark(instance: Instance, spawn: Spawn) -> None:
    parent = spawn(PARENT)
    child = int(first_line(parent))
    record_session(instance.sessions, parent.pid)
    assert {parent.pid, child} <= found(instance)


def test_an_orphan_that_wrote_over_its_environment_is_found(instance: Instance, spawn: Spawn) -> None:
    parent = spawn(PARENT)
    child = int(first_line(parent))
    record_session(instance.sessions, parent.pid)
    parent.kill()
    parent.wait()
    assert child in found(instance)


def test_a_stranger_that_got_the_leaders_number_is_spared(instance: Instance, spawn: Spawn) -> None:
    stranger = spawn(SLEEPER)
    process = read_process(stranger.pid)
    assert process is not None
    write_sessions(instance.sessions, [Session(stranger.pid, process.started - 1, boot_id())])
    assert found(instance) == set()


def test_a_strangers_orphan_in_a_session_of_the_same_number_is_spared(instance: Instance, spawn: Spawn) -> None:
    fork = "import os, time; os.fork() or (print(os.getpid(), flush=True), time.sleep(600)); time.sleep(600)"
    stranger = spawn((sys.executable, "-c", fork))
    first_line(stranger)
    process = read_process(stranger.pid)
    assert process is not None
    stranger.kill()
    stranger.wait()
    assert session_of(stranger.pid)
    write_sessions(instance.sessions, [Session(stranger.pid, process.started - 1, boot_id())])
    assert found(instance) == set()


def test_another_boots_journal_means_nothing(instance: Instance, spawn: Spawn) -> None:
    process = spawn(SLEEPER)
    session = record_session(instance.sessions, process.pid)
    assert session is not None
    write_sessions(instance.sessions, [Session(session.leader, session.started, "another-boot")])
    assert found(instance) == set()


def test_the_sweeper_and_its_ancestors_are_spared(instance: Instance, spawn: Spawn) -> None:
    look = (
        "import sys; from tests.supervise.plans import make_instance; from pathlib import Path\n"
        "from vllm_circus.supervise.sweep import find_leftovers\n"
        "print([p.pid for p in find_leftovers(make_instance(Path(sys.argv[1])))], flush=True)"
    )
    home = instance.run_dir.parent.parent
    process = spawn(
        ("/bin/sh", "-c", '"$@"; :', "sh", sys.executable, "-c", look, str(home)),
        **{MARK: str(instance.run_dir), "PYTHONPATH": str(ROOT)},
    )
    assert first_line(process) == "[]"


def test_leftovers_get_sigterm_and_then_sigkill(instance: Instance, spawn: Spawn) -> None:
    polite, deaf = (spawn(argv, **{MARK: str(instance.run_dir)}) for argv in (SLEEPER, DEAF))
    assert first_line(deaf) == "deaf"
    ended = end_leftovers(instance, grace=0.5)
    assert {process.pid for process in ended} == {polite.pid, deaf.pid}
    assert (polite.wait(), deaf.wait()) == (-signal.SIGTERM, -signal.SIGKILL)


def test_a_running_set_is_never_swept(instance: Instance, spawn: Spawn) -> None:
    ours = spawn(SLEEPER, **{MARK: str(instance.run_dir)})
    hold = (
        "import sys, time; from pathlib import Path; from tests.supervise.plans import make_instance\n"
        "from vllm_circus.supervise.lock import hold_lock\n"
        "with hold_lock(make_instance(Path(sys.argv[1]))): print('held', flush=True); time.sleep(600)"
    )
    home = instance.run_dir.parent.parent
    holder = spawn((sys.executable, "-c", hold, str(home)), PYTHONPATH=str(ROOT))
    assert first_line(holder) == "held"
    assert end_leftovers(instance) == ()
    assert clear_leftovers(instance) == 0
    assert not is_gone(ours.pid)
    holder.kill()
    holder.wait()
    assert clear_leftovers(instance) == 1
    assert is_gone(ours.pid)


def test_whoever_holds_the_lock_may_sweep(instance: Instance, spawn: Spawn) -> None:
    ours = spawn(SLEEPER, **{MARK: str(instance.run_dir)})
    with hold_lock(instance):
        assert [process.pid for process in end_leftovers(instance, grace=0.0)] == [ours.pid]


def test_lost_sessions_are_ended_and_then_forgotten(instance: Instance, spawn: Spawn) -> None:
    owned, parent = spawn(SLEEPER), spawn(PARENT)
    child = int(first_line(parent))
    for process in (owned, parent):
        record_session(instance.sessions, process.pid)
    parent.kill()
    parent.wait()
    assert end_lost(instance, {owned.pid}) >= 1
    wait_for(lambda: is_gone(child))
    wait_for(lambda: end_lost(instance, {owned.pid}) == 0)
    assert {session.leader for session in read_sessions(instance.sessions)} == {owned.pid}
    assert not is_gone(owned.pid)


def test_a_start_after_kill_nine_ends_the_earlier_set_alone(instance: Instance, start: Start, spawn: Spawn) -> None:
    plan = make_plan(
        instance, make_model("a", PARENT), make_model("deaf", DEAF), make_model("b"), make_model("away", LEAVER)
    )
    foreign = [spawn(argv) for argv in (SLEEPER, DEAF)]
    first = start(plan)
    first.wait_active("model-a", "model-deaf", "model-b", "model-away")
    orphan, runaway = int(first.wait_log("a", "")), int(first.wait_log("away", ""))
    first.wait_log("deaf", "deaf")
    leaders = {name: first.pid_of(f"model-{name}") for name in ("a", "deaf", "b", "away")}
    earlier = {*leaders.values(), orphan, runaway}
    first.process.kill()
    first.process.wait()
    wait_for(lambda: is_gone(leaders["b"]))  # the kernel tells it that circusd has died
    assert {orphan, runaway} <= set(first.leftovers())

    second = start(plan)
    second.wait_active("model-a", "model-deaf", "model-b", "model-away")
    assert all(map(is_gone, earlier))
    assert not any(is_gone(process.pid) for process in foreign)
    assert second.end() == 0
    assert not any(is_gone(process.pid) for process in foreign)
