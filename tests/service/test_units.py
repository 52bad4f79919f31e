"""The units: what systemd itself thinks of them, and what they must say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from vllm_circus.config.models import ModelOptions, Proxy
from vllm_circus.errors import CircusError
from vllm_circus.render.service import UNITS, find_manager, program, quote, render_unit, rendered_units

SHIPPED = Path(__file__).parents[2] / "systemd"
FLAVOURS = ("system", "user")
SECURITY_GOAL = 2.0


def analyze(directory: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """`systemd-analyze WORDS…`, which for a user's units wants a runtime directory: `directory`."""
    environ = {**os.environ, "XDG_RUNTIME_DIR": str(directory)}
    return subprocess.run(["systemd-analyze", *words], env=environ, capture_output=True, text=True, check=False)


def write_units(directory: Path, flavour: str, words: Sequence[str] = program()) -> list[Path]:
    """The rendered units in `directory`, the template as an instance of it."""
    manager = find_manager({}, user=flavour == "user")
    paths = []
    for name in UNITS:
        paths.append(directory / name.replace("@", "@lab"))
        paths[-1].write_text(render_unit(SHIPPED.joinpath(flavour, name).read_text(), words, manager.environ))
    return paths


@pytest.fixture
def executable(tmp_path: Path) -> str:
    """A program where `systemd-analyze verify` finds it."""
    path = tmp_path / "vllm-circus"
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_systemd_finds_nothing_to_complain_of(flavour: str, tmp_path: Path, executable: str) -> None:
    run = analyze(tmp_path, "verify", "--man=no", f"--{flavour}", *write_units(tmp_path, flavour, [executable]))
    assert (run.returncode, run.stdout + run.stderr) == (0, "")


@pytest.mark.parametrize("folder", ["with space", "100%s", "se;mi", "ha#sh", "(a)", "ümläut"])
def test_any_installation_folder_can_be_started_from(folder: str, tmp_path: Path) -> None:
    script = tmp_path / folder / "vllm-circus"
    script.parent.mkdir()
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    run = analyze(tmp_path, "verify", "--man=no", "--user", *write_units(tmp_path, "user", [str(script)]))
    assert (run.returncode, run.stdout + run.stderr) == (0, "")


@pytest.mark.parametrize("folder", ["$x", "quo'te", 'dou"ble', "back\\slash"])
def test_a_path_that_systemd_cannot_start_is_refused(folder: str) -> None:
    with pytest.raises(CircusError, match="systemd starts no program"):
        render_unit("ExecStart=vllm-circus run\n", [f"/opt/{folder}/vllm-circus"], [])


def test_a_line_end_never_gets_into_a_unit() -> None:
    with pytest.raises(CircusError, match="cannot stand in a unit file"):
        quote("two\nlines")


def test_the_system_unit_gives_little_away(tmp_path: Path) -> None:
    for path in write_units(tmp_path, "system"):
        run = analyze(tmp_path, "security", "--offline=yes", "--no-pager", path)
        level = re.search(r"exposure level for \S+ ([\d.]+)", run.stdout)
        assert level, run.stdout + run.stderr
        assert float(level[1]) <= SECURITY_GOAL


def test_the_system_unit_leaves_the_gpus_usable() -> None:
    text = SHIPPED.joinpath("system/vllm-circus.service").read_text()
    assert "DeviceAllow=char-nvidia* rw" in text
    assert not re.search(r"^(PrivateDevices|MemoryDenyWriteExecute|ProcSubset)=", text, re.MULTILINE)


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("name", UNITS)
def test_a_stop_has_time_for_every_grace_period(flavour: str, name: str) -> None:
    given = re.search(r"^TimeoutStopSec=(\d+)$", SHIPPED.joinpath(flavour, name).read_text(), re.MULTILINE)
    model, proxy = ModelOptions(), Proxy()
    assert given
    assert int(given[1]) >= model.drain_timeout + model.stop_timeout + proxy.drain_timeout


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_the_template_differs_only_in_the_instance(flavour: str) -> None:
    single, template = (SHIPPED.joinpath(flavour, name).read_text().split("\n[Unit]\n")[1] for name in UNITS)
    assert template != single
    assert template.replace(" (%i)", "").replace(" --instance %i", "") == single


def test_the_folders_are_those_of_the_command_line() -> None:
    """systemd tells the service its folders; root's commands find them without being told."""
    text = SHIPPED.joinpath("system/vllm-circus.service").read_text()
    for kind in ("Configuration", "State", "Logs", "Runtime"):
        assert f"\n{kind}Directory=vllm-circus\n" in text
    assert "\nRuntimeDirectoryMode=0700\n" in text


def test_a_rendered_unit_starts_this_installation() -> None:
    for _, text in rendered_units(find_manager({}, user=False)):
        assert f"\nExecStart={program()[0]} " in text
        assert f"\nEnvironment=PATH={Path(sys.executable).parent}:" in text


def test_a_users_unit_looks_where_the_users_commands_look() -> None:
    environ = {"VLLM_CIRCUS_HOME": "/srv/my models", "XDG_STATE_HOME": "/srv/state", "PATH": "/opt/vllm/bin:/bin"}
    for _, text in rendered_units(find_manager(environ, user=True)):
        assert '\nEnvironment="VLLM_CIRCUS_HOME=/srv/my models"\n' in text
        assert "\nEnvironment=XDG_STATE_HOME=/srv/state\n" in text
        assert ":/opt/vllm/bin:/bin\n" in text
        assert "XDG_CONFIG_HOME" not in text
