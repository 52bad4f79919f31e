"""Folders that others can change, disks that are full, units that are of another version."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from tests.checkup.conftest import MakePlan
from vllm_circus.checkup.findings import Verdict
from vllm_circus.checkup.places import Unit, find_units, judge_folders, judge_unit, judge_writable
from vllm_circus.checkup.room import (
    FLOOR,
    Space,
    busy_processes,
    judge_cache,
    judge_cores,
    judge_open_files,
    judge_room,
    judge_shared_memory,
    read_memory,
    space,
)
from vllm_circus.paths import Instance
from vllm_circus.render.service import MARK, find_manager, rendered_units

GIB = 1 << 30


def test_folders_of_our_own_are_well(instance: Instance) -> None:
    for folder, mode in ((instance.run_dir, 0o700), (instance.state_dir, 0o750), (instance.config_dir, 0o755)):
        folder.mkdir(parents=True)
        folder.chmod(mode)
    assert list(judge_folders(instance, os.geteuid())) == []


@pytest.mark.parametrize(
    ("which", "mode", "fix"), [("run_dir", 0o755, "chmod 700"), ("config_dir", 0o777, "chmod go-w")]
)
def test_a_folder_that_others_get_into_is_told(which: str, mode: int, fix: str, instance: Instance) -> None:
    folder: Path = getattr(instance, which)
    folder.mkdir(parents=True)
    folder.chmod(mode)
    (found,) = judge_folders(instance, os.geteuid())
    assert found.verdict is Verdict.WARNING
    assert found.fix == f"`{fix} {folder}`"


def test_a_run_directory_of_somebody_else_is_a_fault(instance: Instance) -> None:
    instance.run_dir.mkdir(parents=True)
    instance.run_dir.chmod(0o700)
    (found,) = judge_folders(instance, os.geteuid() + 1)
    assert found.verdict is Verdict.FAULT


def test_a_folder_of_configuration_may_be_roots(instance: Instance) -> None:
    instance.config_dir.mkdir()
    owner = instance.config_dir.stat().st_uid
    told = [found.verdict for found in judge_folders(instance, owner + 1)]
    assert told == ([] if owner == 0 else [Verdict.FAULT])


def test_a_file_where_a_folder_is_to_be_is_a_fault(instance: Instance) -> None:
    instance.run_dir.parent.mkdir(parents=True)
    instance.run_dir.touch()
    (found,) = judge_folders(instance, os.geteuid())
    assert (found.verdict, found.what) == (Verdict.FAULT, f"{instance.run_dir} is no folder")


def test_a_home_that_cannot_be_written_is_a_fault(instance: Instance, short_dir: Path) -> None:
    (found,) = judge_writable(instance, os.geteuid(), lambda _place: False)
    assert found.verdict is Verdict.FAULT
    assert found.what == f"user {os.geteuid()} cannot write in {short_dir}, where our folders are to be made"
    assert found.fix == f"`chmod u+rwx {short_dir}`"
    assert list(judge_writable(instance, os.geteuid(), lambda _place: True)) == []


def test_each_folder_that_cannot_be_written_is_told_with_its_fix(instance: Instance, short_dir: Path) -> None:
    for folder in (instance.run_dir, instance.state_dir):
        folder.mkdir(parents=True)
    other = os.geteuid() + 1
    told = list(judge_writable(instance, other, lambda place: place == instance.run_dir))
    assert [found.what for found in told] == [
        f"user {other} cannot write in {instance.state_dir}",
        f"user {other} cannot write in {short_dir}, where our folders are to be made",
    ]
    assert [found.fix for found in told] == [
        f"`sudo chown {other} {instance.state_dir}`",
        f"`sudo install -d -m 700 -o {other} {instance.log_dir}`",
    ]


def test_a_file_above_a_folder_is_a_fault(instance: Instance, short_dir: Path) -> None:
    (short_dir / "state").touch()
    (found,) = judge_writable(instance, os.geteuid(), lambda _place: True)
    assert (found.verdict, found.what) == (Verdict.FAULT, f"{short_dir}/state is no folder")


@pytest.mark.parametrize(
    ("cores", "verdict"), [(8, Verdict.OK), (7, Verdict.OK), (6, Verdict.NOTE), (4, Verdict.NOTE), (3, Verdict.WARNING)]
)
def test_fewer_processors_than_busy_processes_are_told(cores: int, verdict: Verdict) -> None:
    found = judge_cores(cores, (3, 4))
    assert found.verdict is verdict
    assert found.what.startswith(f"{cores} processors for 7 processes that are busy while 2 engines answer")


def test_a_server_a_core_and_a_worker_for_each_gpu_are_busy_and_who_takes_turns_counts_once(plan_of: MakePlan) -> None:
    plan = plan_of("""\
models:
  - {name: a, model: org/a, gpus: [0, 1]}
  - {name: b, model: org/b, gpus: [2], exclusive: night}
  - {name: c, model: org/c, gpus: [2, 3, 4, 5], exclusive: night}
  - {name: d, model: org/d, gpus: [6], enabled: false}
  - {name: e, model: org/e, engine: simulator}
""")
    assert busy_processes(plan.models) == (4, 6)
    assert busy_processes(()) == ()


@pytest.mark.parametrize(
    ("hard", "verdict"), [(-1, Verdict.OK), (1 << 20, Verdict.OK), (4096, Verdict.NOTE), (512, Verdict.WARNING)]
)
def test_few_open_files_are_told(hard: int, verdict: Verdict) -> None:
    assert judge_open_files(hard, 10_000).verdict is verdict


@pytest.mark.parametrize(
    ("found", "needed", "several", "verdict"),
    [
        (Space(16 * GIB, 16 * GIB), True, True, Verdict.OK),
        (Space(64 << 20, 64 << 20), True, True, Verdict.WARNING),
        (Space(64 << 20, 64 << 20), True, False, Verdict.NOTE),
        (Space(16 * GIB, FLOOR - 1), True, False, Verdict.FAULT),
        (Space(16 * GIB, FLOOR - 1), False, False, Verdict.NOTE),
        (None, True, False, Verdict.WARNING),
    ],
)
def test_shared_memory_is_judged_by_who_needs_it(
    found: Space | None, needed: bool, several: bool, verdict: Verdict
) -> None:
    assert judge_shared_memory(found, needed=needed, several=several).verdict is verdict


@pytest.mark.parametrize(
    ("free", "verdict"), [(FLOOR - 1, Verdict.FAULT), (FLOOR, Verdict.WARNING), (2 * GIB, Verdict.OK)]
)
def test_a_full_disk_is_told(free: int, verdict: Verdict, tmp_path: Path) -> None:
    assert judge_room("logs", tmp_path, Space(100 * GIB, free)).verdict is verdict


def test_a_cache_without_room_for_a_model_is_noted(tmp_path: Path) -> None:
    assert judge_cache(tmp_path, Space(100 * GIB, 5 * GIB)).verdict is Verdict.NOTE
    assert judge_cache(tmp_path, Space(100 * GIB, 50 * GIB)).verdict is Verdict.OK


def test_a_folder_that_is_not_there_yet_has_the_room_of_its_parent(tmp_path: Path) -> None:
    found = space(tmp_path / "a/b")
    assert found is not None
    assert found.total == os.statvfs(tmp_path).f_blocks * os.statvfs(tmp_path).f_frsize


def test_memory_is_that_of_the_container_where_it_has_a_limit(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal:  8388608 kB\nMemFree:  1 kB\nMemAvailable:  4194304 kB\n")
    assert read_memory(tmp_path, tmp_path) == Space(8 * GIB, 4 * GIB)
    (tmp_path / "memory.max").write_text("max\n")
    assert read_memory(tmp_path, tmp_path) == Space(8 * GIB, 4 * GIB)
    (tmp_path / "memory.max").write_text(f"{3 * GIB}\n")
    (tmp_path / "memory.current").write_text(f"{2 * GIB}\n")
    (tmp_path / "memory.stat").write_text(f"anon 5\ninactive_file {GIB}\n")
    assert read_memory(tmp_path, tmp_path) == Space(3 * GIB, 2 * GIB)
    (tmp_path / "meminfo").write_text("")
    assert read_memory(tmp_path, tmp_path) is None


UNIT = Unit(Path("/u/vllm-circus.service"), f"{MARK}[Service]\n", f"{MARK}[Service]\n", "enabled", "active", user=True)


@pytest.mark.parametrize(
    ("unit", "verdict", "fix"),
    [
        (UNIT, Verdict.OK, ""),
        (replace(UNIT, text="[Service]\n"), Verdict.NOTE, "see that it"),
        (replace(UNIT, wanted=f"{MARK}[Service]\nNice=1\n"), Verdict.WARNING, "`vllm-circus service install --user`"),
        (replace(UNIT, text=f"{MARK}Environment=PATH=/other\n[Service]\n"), Verdict.OK, ""),
        (replace(UNIT, enabled="disabled"), Verdict.NOTE, "`systemctl --user enable --now vllm-circus.service`"),
        (replace(UNIT, active="failed"), Verdict.FAULT, "`journalctl --user -u vllm-circus.service"),
        (replace(UNIT, user=False, active="failed"), Verdict.FAULT, "`sudo journalctl -u"),
        (replace(UNIT, enabled="", active=""), Verdict.OK, ""),
    ],
)
def test_a_unit_is_judged_by_what_would_be_written(unit: Unit, verdict: Verdict, fix: str) -> None:
    found = judge_unit(unit)
    assert found.verdict is verdict
    assert fix in found.fix


@pytest.mark.parametrize("name", ["default", "other"])
def test_the_unit_of_this_instance_is_found_where_it_is_installed(name: str, tmp_path: Path) -> None:
    environ = {"XDG_CONFIG_HOME": str(tmp_path), "PATH": "/bin"}
    assert not [unit for unit in find_units(environ, name) if unit.user]
    manager = find_manager(environ, user=True)
    manager.units.mkdir(parents=True)
    for path, content in rendered_units(manager):
        path.write_text(content)
    (unit,) = [unit for unit in find_units(environ, name) if unit.user]
    assert unit.path.name == ("vllm-circus.service" if name == "default" else "vllm-circus@.service")
    assert unit.text == unit.wanted
