"""How commands end: exit codes, and never a traceback."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import signal
import stat
import subprocess
import sys
import time
from importlib.resources import files
from pathlib import Path

import click
import pytest

from tests.cli.conftest import Command
from vllm_circus.cli.outcome import explain
from vllm_circus.errors import CircusError, ConfigError, Fault, NotRunning, UnknownModel
from vllm_circus.paths import Instance


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> object:
    """Makes `vllm-circus example` fail with an error of the test's choice."""

    def fail_with(error: BaseException) -> None:
        @click.command()
        def example() -> None:
            raise error

        monkeypatch.setattr("vllm_circus.cli.example.example", example)

    return fail_with


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (CircusError("no"), 1),
        (NotRunning("no"), 3),
        (UnknownModel("no"), 4),
        (click.UsageError("no"), 2),
        (KeyboardInterrupt(), 130),
        (click.Abort(), 130),
    ],
)
def test_each_kind_of_error_has_its_exit_code(
    error: BaseException, code: int, failing: object, command: Command
) -> None:
    failing(error)  # type: ignore[operator] # a fixture that is a function
    outcome = command("example")
    assert outcome.code == code
    assert outcome.out == ""
    assert "Traceback" not in outcome.err


def test_an_error_is_told_with_its_hint(capsys: pytest.CaptureFixture[str]) -> None:
    explain(NotRunning("it is not running", hint="start it"))
    assert capsys.readouterr().err == "error: it is not running\nhint: start it\n"


def test_every_fault_of_a_configuration_has_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    explain(ConfigError((Fault("m.yaml", 7, "models[0].port", "is taken"), Fault("m.yaml", 2, "proxy", "no", "do"))))
    assert capsys.readouterr().err == (
        "error: m.yaml:2: proxy: no (do)\n"
        "error: m.yaml:7: models[0].port: is taken\n"
        "2 faults; nothing was started or written\n"
    )


@pytest.mark.parametrize(
    "number",
    [
        *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR),
        *(errno.EMFILE, errno.ENFILE, errno.EIO),
    ],
)
def test_what_the_machine_refuses_is_no_bug(number: int, failing: object, command: Command) -> None:
    failing(OSError(number, os.strerror(number), "/some/file"))  # type: ignore[operator] # see above
    outcome = command("example")
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err.startswith(f"error: /some/file: {os.strerror(number)}\nhint: ")


@pytest.mark.parametrize("number", [errno.ENAMETOOLONG, errno.ELOOP])
def test_a_name_that_no_file_can_have_is_a_slip(number: int, failing: object, command: Command) -> None:
    failing(OSError(number, os.strerror(number), "/some/file"))  # type: ignore[operator] # see above
    assert command("example").code == 2


def test_a_full_disk_is_no_bug_even_where_nobody_knows_the_file(failing: object, command: Command) -> None:
    failing(OSError(errno.ENOSPC, "No space left on device"))  # type: ignore[operator] # see above
    outcome = command("example")
    assert outcome.code == 1
    assert outcome.err.startswith("error: No space left on device\nhint: make room")


@pytest.mark.parametrize("error", [FileNotFoundError(errno.ENOENT, "no", "/f"), PermissionError("no"), OSError("no")])
def test_other_errors_of_files_are_bugs(error: OSError, failing: object, command: Command) -> None:
    failing(error)  # type: ignore[operator] # see above
    assert "this is a bug" in command("example").err


@pytest.mark.parametrize("arguments", [("status",), ("check", "m.yaml"), ("logs",), ("down",), ("config", "list")])
def test_a_home_that_is_no_folder_is_named(
    arguments: tuple[str, ...], home: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = home / "file"
    file.touch()
    monkeypatch.setenv("VLLM_CIRCUS_HOME", str(file))
    outcome = command(*arguments)
    assert outcome.code == 2
    assert outcome.err.startswith(f"error: VLLM_CIRCUS_HOME is {file}, which is no folder\nhint: ")
    monkeypatch.setenv("VLLM_CIRCUS_HOME", str(file / "below"))
    assert f"{file} is no folder" in command(*arguments).err


def test_a_shelf_behind_a_file_has_no_owner_to_change(home: Path, command: Command) -> None:
    (home / "config").touch()
    outcome = command("config", "list")
    assert "Not a directory" in outcome.err
    assert "chown" not in outcome.err


def test_a_bug_is_one_line_and_its_details_are_private(failing: object, command: Command, instance: Instance) -> None:
    failing(ZeroDivisionError("secret detail"))  # type: ignore[operator] # a fixture that is a function
    outcome = command("example")
    (crash,) = instance.state_dir.glob("crash-*.txt")
    assert outcome.code == 1
    assert outcome.err == f"error: this is a bug in vllm-circus: ZeroDivisionError; please report it with {crash}\n"
    assert "ZeroDivisionError: secret detail" in crash.read_text()
    assert stat.S_IMODE(crash.stat().st_mode) == 0o600


def test_a_bug_is_told_even_where_nothing_can_be_written(failing: object, command: Command, home: Path) -> None:
    (home / "state").write_text("in the way")
    failing(ZeroDivisionError("division"))  # type: ignore[operator] # a fixture that is a function
    outcome = command("example")
    assert outcome.code == 1
    assert outcome.err.startswith("error: this is a bug in vllm-circus: ZeroDivisionError: division (details are lost:")


def test_a_reader_that_goes_away_is_no_error(home: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "vllm_circus", "example"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.close()
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (141, b"")


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", [("example",), ("--version",), ("settings", "show")])  # more than a buffer, less
def test_an_output_that_cannot_be_written_is_no_bug(arguments: tuple[str, ...], unbuffered: str, home: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "vllm_circus", *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.startswith("error: the output cannot be written: No space left on device\nhint: ")
    assert len(done.stderr.splitlines()) == 2
    assert not list(home.rglob("crash-*"))


@pytest.mark.parametrize(("arguments", "code"), [(("status",), 3), (("nonsense",), 2)])
def test_the_exit_code_is_the_same_where_nobody_can_be_told(arguments: tuple[str, ...], code: int, home: Path) -> None:
    assert home
    with Path("/dev/full").open("wb") as full:
        command = [sys.executable, "-m", "vllm_circus", *arguments]
        assert subprocess.run(command, stdout=full, stderr=full, check=False).returncode == code


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_an_output_that_never_blocks_is_waited_for(unbuffered: str, home: Path) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    room = fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    child = subprocess.Popen(
        [sys.executable, "-m", "vllm_circus", "example"],
        stdout=writer,
        stderr=subprocess.PIPE,
        env={**os.environ, "VLLM_CIRCUS_HOME": str(home), "PYTHONUNBUFFERED": unbuffered},
    )
    with os.fdopen(reader, "rb") as output, child:
        poll = select.poll()
        poll.register(writer, select.POLLOUT)
        while poll.poll(0):  # until it is full
            assert child.poll() is None
            time.sleep(0.01)
        os.close(writer)
        written = output.read()
        assert child.stderr is not None
        assert (child.wait(), child.stderr.read()) == (0, b"")
    assert len(written) > 2 * room
    assert written == files("vllm_circus.conf").joinpath("example.yaml").read_bytes()


def test_ctrl_c_ends_with_130_and_no_words(instance: Instance) -> None:
    log = instance.log("circusd")
    log.parent.mkdir(parents=True)
    log.write_text("2026-11-23T14:31:53.123+00:00 O hello\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "vllm_circus", "logs", "-f"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
    )
    assert process.stdout is not None
    assert b"hello" in process.stdout.readline()
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, b"")
