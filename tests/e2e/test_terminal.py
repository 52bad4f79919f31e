"""What people see on a terminal: a real one, of 80 columns and 24 lines."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

from tests.e2e.conftest import PROGRAM, Circus

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]


@pytest.fixture
def running(circus: Circus, models_file: Path) -> Circus:
    """A set whose models are ready."""
    circus("up", str(models_file), "-d", "--wait")
    return circus


def terminal(circus: Circus, *arguments: str, **environ: str) -> pexpect.spawn:
    """A command on a terminal."""
    env = {**circus.environ, "TERM": "xterm-256color", **environ}
    env.pop("COLUMNS", None)
    return pexpect.spawn(PROGRAM, list(arguments), env=env, dimensions=(24, 80), encoding="utf-8", timeout=60)


@pytest.fixture
def watching(running: Circus) -> Iterator[pexpect.spawn]:
    """`status -w` on a terminal."""
    child = terminal(running, "status", "-w")
    yield child
    child.close(force=True)


def plain(text: str) -> list[str]:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).splitlines()


def test_status_has_colours_and_fits(running: Circus) -> None:
    child = terminal(running, "status")
    child.expect(pexpect.EOF)
    shown = child.before
    assert "\x1b[32mready" in shown
    table = plain(shown)[:4]
    assert table[0].startswith("NAME")
    assert max(map(len, table)) <= 80


def test_no_colour_where_it_is_not_wanted(running: Circus) -> None:
    child = terminal(running, "status", NO_COLOR="1")
    child.expect(pexpect.EOF)
    assert "\x1b[" not in child.before


def test_the_status_changes_in_place_and_ends_with_ctrl_c(running: Circus, watching: pexpect.spawn) -> None:
    watching.expect("alpha.*ready")
    running("stop", "beta")
    watching.expect(r"beta.*stopped")
    watching.sendintr()
    watching.expect(pexpect.EOF)
    watching.wait()
    assert watching.exitstatus == 130
    assert "Traceback" not in watching.before
    assert "\x1b[?25h" in watching.before  # the cursor is shown again


def test_the_status_in_place_ends_with_the_set(running: Circus, watching: pexpect.spawn) -> None:
    watching.expect("alpha.*ready")
    running("down")
    watching.expect("error: vllm-circus is not running")
    watching.expect(pexpect.EOF)
    watching.wait()
    assert watching.exitstatus == 3


def test_up_counts_the_seconds_while_it_waits_and_clears_them(circus: Circus, models_file: Path) -> None:
    child = terminal(circus, "up", str(models_file), "-d", "--wait", TERM="dumb")
    child.expect(r"alpha loading \d+s")
    child.expect("proxy on http://")
    child.expect(pexpect.EOF)
    child.wait()
    assert child.exitstatus == 0


def test_ctrl_c_while_waiting_leaves_the_set_to_start(circus: Circus, models_file: Path) -> None:
    child = terminal(circus, "up", str(models_file), "-d", "--wait", TERM="dumb")
    child.expect(r"alpha: (queued|loading)")
    child.sendintr()
    child.expect("no longer waiting; the set goes on starting")
    child.expect(pexpect.EOF)
    child.wait()
    assert child.exitstatus == 130
    circus("start", "alpha")


def test_a_silent_health_plugin_is_shown_as_such(running: Circus) -> None:
    before = running.status()
    pid = health_pid(running)
    os.kill(pid, signal.SIGSTOP)
    try:
        shown = running("status").stdout
        assert "health silent" in shown
        assert re.search(r"^alpha +unknown", shown, re.MULTILINE)
        assert before["plugins"][0]["alive"] is True
    finally:
        os.kill(pid, signal.SIGCONT)


def health_pid(circus: Circus) -> int:
    """Pid of the health plugin: the process of the set with the plugin's name in its command."""
    (pid,) = [
        pid for pid in circus.processes() if b"vllm_circus_plugins.health" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    return pid


def test_an_edit_with_a_fault_is_offered_again(circus: Circus, models_file: Path, short_dir: Path) -> None:
    circus("config", "save", "hall", str(models_file))
    editor = short_dir / "editor"
    editor.write_text(
        '#!/bin/sh\nif grep -q BAD "$1"; then sed -i s/BAD/delta/ "$1"; else sed -i s/alpha/BAD/ "$1"; fi\n'
    )
    editor.chmod(0o700)
    child = terminal(circus, "config", "edit", "hall", EDITOR=str(editor), VISUAL="")
    child.expect("'BAD' cannot be used here")
    child.expect(r"edit it again\? \[Y/n\]")
    child.send("\r")
    child.expect("changed .*hall.yaml")
    child.expect(pexpect.EOF)
    assert "delta" in circus("config", "show", "hall").stdout


def test_what_would_be_removed_is_asked_for(circus: Circus, models_file: Path) -> None:
    circus("config", "save", "hall", str(models_file))
    for answer, left in (("n", ["hall"]), ("y", [])):
        child = terminal(circus, "config", "rm", "hall")
        child.expect(r"remove configuration hall\? \[y/N\]")
        child.send(f"{answer}\r")
        child.expect(pexpect.EOF)
        assert [path.stem for path in (circus.home / "config/configs").glob("*.yaml")] == left
