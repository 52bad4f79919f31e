"""One holder at a time, known by its pid, gone with its process."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import sys
import threading

import pytest

from tests.supervise.conftest import ROOT
from vllm_circus.errors import CircusError
from vllm_circus.paths import Instance
from vllm_circus.stores import locking
from vllm_circus.supervise.lock import hold_change, hold_lock, lock_holder

HOLD = (
    "import sys, time; from pathlib import Path; from tests.supervise.plans import make_instance\n"
    "from vllm_circus.supervise.lock import hold_lock\n"
    "with hold_lock(make_instance(Path(sys.argv[1]))): print('held', flush=True); time.sleep(600)"
)


def test_nobody_holds_what_is_not_there(instance: Instance) -> None:
    assert lock_holder(instance) is None


def test_the_holder_is_known_while_it_holds(instance: Instance) -> None:
    with hold_lock(instance):
        assert lock_holder(instance) == os.getpid()
    assert lock_holder(instance) is None


def test_the_run_directory_is_private(instance: Instance) -> None:
    with hold_lock(instance):
        assert stat.S_IMODE(instance.run_dir.stat().st_mode) == 0o700


def test_a_second_holder_is_refused(instance: Instance) -> None:
    with hold_lock(instance), pytest.raises(CircusError, match=f"process {os.getpid()}, since 20") as refused:  # noqa: SIM117
        with hold_lock(instance):
            pass
    assert refused.value.exit_code == 1


def test_a_killed_holder_holds_nothing(instance: Instance) -> None:
    command = (sys.executable, "-c", HOLD, str(instance.run_dir.parent.parent))
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        assert lock_holder(instance) == holder.pid
        holder.kill()
    assert lock_holder(instance) is None
    with hold_lock(instance):
        assert lock_holder(instance) == os.getpid()


def test_children_do_not_keep_the_lock(instance: Instance) -> None:
    with hold_lock(instance):
        child = subprocess.Popen(("sleep", "600"), close_fds=False)
    try:
        assert lock_holder(instance) is None
    finally:
        child.kill()
        child.wait()


def test_somebody_who_asks_all_the_time_does_not_keep_a_start_out(instance: Instance) -> None:
    stop = threading.Event()
    with hold_lock(instance):
        pass

    def ask() -> None:
        while not stop.is_set():
            lock_holder(instance)

    askers = [threading.Thread(target=ask) for _ in range(2)]
    for asker in askers:
        asker.start()
    try:
        for _ in range(20):
            with hold_lock(instance):
                pass
    finally:
        stop.set()
        for asker in askers:
            asker.join()


def test_what_clears_up_old_files_passes_over_the_run_directory(instance: Instance) -> None:
    with hold_lock(instance):
        folder = os.open(instance.run_dir, os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(folder)


def test_the_lock_of_another_user_is_not_believed(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    with hold_lock(instance):
        owner = os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
        with pytest.raises(PermissionError, match="another user"):
            lock_holder(instance)
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        assert lock_holder(instance) == os.getpid()


def test_who_waits_to_change_a_set_is_told_for_whom(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locking, "TELL_AFTER", 0.05)
    instance.run_dir.mkdir(parents=True)
    waits, told = threading.Event(), list[str]()

    def tell(text: str) -> None:
        told.append(text)
        waits.set()

    def change() -> None:
        with hold_change(instance, tell):
            pass

    other = threading.Thread(target=change)
    with hold_change(instance):
        other.start()
        assert waits.wait(30)
    other.join(30)
    assert not other.is_alive()
    assert told[0].startswith(f"waiting for process {os.getpid()} (")
    assert told[0].endswith("is changing what the running set goes by")
