"""What `up` says before it leaves a set alone."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from tests.cli.conftest import Command
from vllm_circus.paths import Instance, goes_with_login
from vllm_circus.supervise.lock import hold_lock


def test_a_set_whose_folder_goes_at_logout_is_known(tmp_path: Path) -> None:
    user = os.getuid()
    run_dir = Path(f"/run/user/{user}/vllm-circus/default")
    assert goes_with_login(run_dir, user, tmp_path)
    (tmp_path / pwd.getpwuid(user).pw_name).touch()
    assert not goes_with_login(run_dir, user, tmp_path)


def test_no_other_folder_goes_at_logout(tmp_path: Path) -> None:
    assert not goes_with_login(tmp_path, os.getuid(), tmp_path)
    assert not goes_with_login(Path("/run/user/4000000001/x"), 4000000001, tmp_path)


def test_what_runs_is_told_before_any_file_is_missed(command: Command, instance: Instance) -> None:
    with hold_lock(instance):
        outcome = command("up")
    assert outcome.code == 1
    assert outcome.err.startswith(f"error: vllm-circus is running already (circusd is process {os.getpid()})\n")
