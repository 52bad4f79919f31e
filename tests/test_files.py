"""Files that are never half written."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from vllm_circus.errors import CircusError
from vllm_circus.files import file_errors, naming, private_directory, write_atomic


def test_content_and_mode_are_exact_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        write_atomic(tmp_path / "a", "text", mode=0o644)
        write_atomic(tmp_path / "b", b"\x00bytes", mode=0o600)
    finally:
        os.umask(before)
    assert (tmp_path / "a").read_text() == "text"
    assert (tmp_path / "b").read_bytes() == b"\x00bytes"
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o644
    assert stat.S_IMODE((tmp_path / "b").stat().st_mode) == 0o600


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.mkdir()  # a folder cannot be replaced by a file
    (target / "old").write_text("old")
    with pytest.raises(OSError, match="file"):
        write_atomic(target, "new")
    assert (target / "old").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_kill_9_at_any_moment_leaves_the_old_or_the_new_content(tmp_path: Path) -> None:
    target = tmp_path / "file"
    versions = ["a" * 100_000, "b" * 200_000]
    write_atomic(target, versions[0])
    script = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from vllm_circus.files import write_atomic
        versions = ["a" * 100_000, "b" * 200_000]
        print("go", flush=True)
        while True:
            for version in versions:
                write_atomic(Path(sys.argv[1]), version)
        """
    )
    for attempt in range(20):
        with subprocess.Popen([sys.executable, "-c", script, str(target)], stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"go\n"
            for _ in range(attempt * 40):  # another moment each time
                target.stat()
            writer.send_signal(signal.SIGKILL)
        assert target.read_text() in versions


def test_a_private_directory_is_made_with_its_parents_and_closed_to_others(tmp_path: Path) -> None:
    path = private_directory(tmp_path / "a" / "b")
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    path.chmod(0o755)
    private_directory(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_a_private_directory_of_somebody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = private_directory(tmp_path / "a")
    owner = path.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(PermissionError, match="belongs to user"):
        private_directory(path)


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    target = tmp_path / "nowhere" / "file"
    with pytest.raises(FileNotFoundError) as failed:
        write_atomic(target, "x")
    assert failed.value.filename == str(target)


def test_what_the_operator_must_mend_is_said_to_the_operator(tmp_path: Path) -> None:
    with pytest.raises(CircusError, match=f"^{tmp_path}/nowhere/file: No such file or directory$"), file_errors():
        write_atomic(tmp_path / "nowhere" / "file", "x")
    with pytest.raises(OSError, match="of another kind"), file_errors():
        raise OSError("of another kind")


def test_a_write_to_a_full_disk_names_the_file_and_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with pytest.raises(CircusError, match=f"^{path}: No space left") as told, file_errors(), naming(path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert "make room" in told.value.hint


def test_folders_on_the_way_are_nobody_elses_to_write_in(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        private_directory(tmp_path / "a" / "b" / "c")
    finally:
        os.umask(before)
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a", "a/b", "a/b/c")] == [0o755, 0o755, 0o700]


def test_a_folder_inside_somebody_elses_is_refused_where_everybody_may_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared, theirs = tmp_path / "tmp", tmp_path / "tmp" / "theirs"
    theirs.mkdir(parents=True)
    path = private_directory(theirs / "ours")
    owner = path.stat().st_uid
    shared.chmod(0o1777)
    theirs.chmod(0o777)
    with pytest.raises(PermissionError, match="theirs"):
        private_directory(path)
    theirs.chmod(0o755)
    assert private_directory(path) == path
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(PermissionError):
        private_directory(path)
