"""Names, paths and streams that nobody should hand in: each is an answer, and none a bug, a hang or a loss."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.catalogue.samples import model_folder
from tests.cli.conftest import Command
from vllm_circus.paths import Instance

NOBODY = "~no-such-user/x"
LONG = "a" * 300


@pytest.mark.parametrize(
    "words",
    [
        ("check", LONG),
        ("up", LONG),
        ("config", "save", "hall", LONG),
        ("models", "folders", "add", LONG),
        ("add", LONG, "--to", "hall"),
    ],
)
def test_a_name_that_no_file_can_have_is_an_error_of_usage(command: Command, words: tuple[str, ...]) -> None:
    refused = command(*words)
    assert (refused.code, "File name too long" in refused.err) == (2, True)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("models", "folders", "add", NOBODY), 1),
        (("models", "folders", "rm", NOBODY), 4),
        (("models", "show", NOBODY), 4),
        (("settings", "set", "token_file", NOBODY), 0),
        (("add", NOBODY, "--to", "hall"), None),
        (("fit", ""), 4),
        (("fit", "a/\n"), 4),
    ],
)
def test_a_home_of_nobody_and_a_model_of_no_name_are_no_bugs(
    command: Command, words: tuple[str, ...], code: int | None
) -> None:
    outcome = command(*words)
    assert "bug" not in outcome.err
    assert code in {None, outcome.code}


def test_settings_that_name_a_home_of_nobody_stop_no_command(command: Command, instance: Instance) -> None:
    instance.settings.parent.mkdir(parents=True, exist_ok=True)
    instance.settings.write_text(f"model_folders: ['{NOBODY}']\ntoken_file: '{NOBODY}'\n")
    listed = command("models", "list")
    assert (listed.code, f"{NOBODY} is not there" in listed.err) == (0, True)
    assert "broke" not in command("doctor").out


def test_control_characters_of_a_folder_s_name_reach_no_terminal(command: Command, home: Path) -> None:
    folder = model_folder(home / "own" / "a\x1b]0;title\x07b")
    command("models", "folders", "add", str(home / "own"))
    shown = [
        command("models", "show", str(folder)),
        command("models", "rm", "--yes", str(folder)),
        command("check", str(folder / "none")),
        command("\x1b[31mx"),
    ]
    assert not any("\x1b" in each.err or "\x07" in each.err for each in shown)
    assert not folder.exists()


def test_a_pipe_among_what_is_kept_hangs_nobody(command: Command, instance: Instance) -> None:
    command("profiles", "new", "quick")
    os.mkfifo(instance.profiles / "pipe.yaml")
    listed = command("profiles", "list")
    assert (listed.code, "quick" in listed.out) == (0, True)
    assert f"{instance.profiles}/pipe.yaml: is not a file" in listed.err
    os.mkfifo(instance.settings)
    assert "is not a file" in command("settings", "show").err


def test_an_export_takes_the_place_of_no_pipe_or_device(command: Command, home: Path) -> None:
    command("profiles", "new", "quick", "--description", "quick one")
    pipe, read = home / "pipe", list[str]()
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()), daemon=True)
    reader.start()
    assert command("profiles", "export", "quick", "--output", str(pipe)).code == 0
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    reader.join(30)
    assert "description: quick one" in read[0]


@pytest.mark.parametrize("kind", ["config", "profiles", "shortcuts"])
def test_what_is_no_regular_file_is_not_imported(kind: str, command: Command, home: Path) -> None:
    pipe = home / "pipe"
    os.mkfifo(pipe)
    for path in (str(pipe), str(home), "/dev/null"):
        refused = command(kind, "import", path)
        assert (refused.code, refused.out) == (2, "")
        assert f"{path}: is no regular file (name a file, or `-` for stdin)" in refused.err


def run(script: str, home: Path) -> subprocess.CompletedProcess[str]:
    """A command line in a shell; `vllm-circus` is "$@"."""
    program = (sys.executable, "-m", "vllm_circus")
    environ = {**os.environ, "VLLM_CIRCUS_HOME": str(home)}
    return subprocess.run(
        ["sh", "-c", script, "sh", *program], env=environ, capture_output=True, text=True, timeout=60, check=False
    )


def test_input_without_an_end_is_refused(home: Path) -> None:
    refused = run('"$@" config import - < /dev/zero', home)
    assert (refused.returncode, "larger than 1 MiB" in refused.stderr) == (2, True)


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-"])
def test_a_stream_that_is_closed_is_no_bug(closed: str, home: Path) -> None:
    listed = run(f'"$@" profiles list {closed}', home)
    assert (listed.returncode, listed.stderr) == (0, "")


@pytest.mark.parametrize(
    ("words", "lock"),
    [(("settings", "set", "plain", "true"), ".settings.lock"), (("config", "save", "x", "m.yaml"), "configs/.lock")],
)
def test_a_file_that_nothing_can_be_written_to_is_named(words: tuple[str, ...], lock: str, home: Path) -> None:
    """A limit of the process fails as a full disk does: in the middle of a write, which does not say where."""
    (home / "m.yaml").write_text("models: [{name: a, model: sim/a, engine: simulator}]\n")
    done = subprocess.run(
        ["sh", "-c", 'ulimit -f 0; exec "$0" -m vllm_circus "$@"', sys.executable, *words],
        capture_output=True,
        text=True,
        cwd=home,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {home}/config/{lock}: File too large\nhint: ")
