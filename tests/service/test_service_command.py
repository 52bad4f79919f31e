"""`vllm-circus service`: what it writes, what it leaves alone, and what it asks systemd for."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from vllm_circus.cli.service import unreachable
from vllm_circus.render.service import MARK, UNITS

SYSTEMCTL = """#!/bin/sh
echo "$@" >> "$SYSTEMCTL_JOURNAL"
if [ -n "$SYSTEMCTL_FAILS" ]; then echo "Failed to connect to bus" >&2; exit 1; fi
"""


@dataclass(frozen=True)
class Home:
    """A user's home with a systemctl that only writes down what it was asked."""

    path: Path
    environ: dict[str, str]

    @property
    def units(self) -> Path:
        return self.path / "config/systemd/user"

    def service(self, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "vllm_circus", "service", *words]
        return subprocess.run(argv, env={**self.environ, **environ}, capture_output=True, text=True, check=False)

    def asked(self) -> list[str]:
        """What systemctl was asked since the last time."""
        journal = self.path / "journal"
        lines = journal.read_text().splitlines() if journal.exists() else []
        journal.unlink(missing_ok=True)
        return lines


@pytest.fixture
def home(tmp_path: Path) -> Home:
    systemctl = tmp_path / "bin/systemctl"
    systemctl.parent.mkdir()
    systemctl.write_text(SYSTEMCTL)
    systemctl.chmod(0o755)
    environ = {
        **os.environ,
        "PATH": f"{systemctl.parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "SYSTEMCTL_JOURNAL": str(tmp_path / "journal"),
    }
    return Home(tmp_path, environ)


def test_show_prints_the_units_and_writes_nothing(home: Home) -> None:
    run = home.service("show", "--user")
    assert (run.returncode, run.stderr) == (0, "")
    for name in UNITS:
        assert f"# {home.units / name}\n{MARK}" in run.stdout
    assert not home.units.exists()


def test_install_writes_what_show_prints_and_says_what_is_next(home: Home) -> None:
    shown = home.service("show", "--user").stdout
    run = home.service("install", "--user")
    assert run.returncode == 0
    for name in UNITS:
        assert (home.units / name).read_text() in shown
        assert (home.units / name).stat().st_mode & 0o777 == 0o644
    assert home.asked() == ["--user daemon-reload"]
    assert "next: systemctl --user enable --now vllm-circus\n" in run.stderr
    assert "enable-linger" in run.stderr


def test_install_again_replaces_our_own_units(home: Home) -> None:
    home.service("install", "--user")
    unit = home.units / UNITS[0]
    unit.write_text(MARK + "old")
    assert home.service("install", "--user").returncode == 0
    assert "ExecStart=" in unit.read_text()


@pytest.mark.parametrize("verb", ["install", "uninstall"])
def test_a_unit_that_we_did_not_write_is_left_alone(home: Home, verb: str) -> None:
    home.units.mkdir(parents=True)
    (home.units / UNITS[1]).write_text("[Service]\nExecStart=/bin/true\n")
    run = home.service(verb, "--user")
    assert run.returncode == 1
    assert "was not written by us" in run.stderr
    assert [path.name for path in home.units.iterdir()] == [UNITS[1]]
    assert (home.units / UNITS[1]).read_text() == "[Service]\nExecStart=/bin/true\n"
    assert home.asked() == []


def test_force_replaces_and_removes_foreign_units(home: Home) -> None:
    home.units.mkdir(parents=True)
    (home.units / UNITS[0]).write_text("foreign")
    assert home.service("install", "--user", "--force").returncode == 0
    assert (home.units / UNITS[0]).read_text().startswith(MARK)
    (home.units / UNITS[0]).write_text("foreign")
    assert home.service("uninstall", "--user", "--force").returncode == 0
    assert list(home.units.iterdir()) == []


def test_uninstall_stops_and_disables_before_it_removes(home: Home) -> None:
    home.service("install", "--user")
    home.asked()
    assert home.service("uninstall", "--user").returncode == 0
    assert list(home.units.iterdir()) == []
    assert home.asked() == [
        "--user stop vllm-circus.service vllm-circus@*.service",
        "--user disable vllm-circus.service vllm-circus@.service",
        "--user daemon-reload",
    ]


def test_uninstall_of_nothing_is_no_failure(home: Home) -> None:
    run = home.service("uninstall", "--user")
    assert run.returncode == 0
    assert "no unit of ours" in run.stderr
    assert home.asked() == []


@pytest.mark.parametrize("verb", ["install", "uninstall"])
def test_a_manager_that_does_not_answer_is_a_warning(home: Home, verb: str) -> None:
    home.service("install", "--user")
    run = home.service(verb, "--user", SYSTEMCTL_FAILS="1")
    assert run.returncode == 0
    assert "warning: `systemctl --user daemon-reload` failed: Failed to connect to bus" in run.stderr
    assert ("\nthen, where systemd runs: systemctl --user enable --now vllm-circus\n" in run.stderr) == (
        verb == "install"
    )
    assert "next:" not in run.stderr


def test_without_systemctl_the_units_are_written_and_the_rest_is_told(home: Home) -> None:
    run = home.service("install", "--user", PATH=str(home.path / "nothing"))
    assert run.returncode == 0
    assert "systemctl is not installed; where systemd runs: systemctl --user daemon-reload" in run.stderr
    assert "\nthen, where systemd runs: systemctl --user enable --now vllm-circus\n" in run.stderr
    assert (home.units / UNITS[0]).exists()


def test_the_systems_folder_is_for_root_alone(home: Home, tmp_path: Path) -> None:
    """A folder that cannot be made stands for /etc/systemd/system seen by a user."""
    (tmp_path / "config").write_text("a file where a folder should be")
    run = home.service("install", "--user")
    assert run.returncode == 1
    assert f"cannot change {home.units}: Not a directory" in run.stderr
    assert "Traceback" not in run.stderr


def test_the_first_folder_that_others_cannot_enter_is_found(short_dir: Path) -> None:
    script = short_dir / "private/bin/vllm-circus"
    script.parent.mkdir(parents=True)
    script.write_text("")
    for path in (short_dir, short_dir / "private", script.parent, script):
        path.chmod(0o755)
    assert unreachable([short_dir, script]) is None
    (short_dir / "private").chmod(0o700)
    assert unreachable([short_dir, script]) == short_dir / "private"
    (short_dir / "private").chmod(0o711)
    script.chmod(0o750)
    assert unreachable([script]) == script
