"""A real terminal is as it was before, however a screen ends."""

from __future__ import annotations

import os
import re
import signal
import sys
import termios
from collections.abc import Iterator

import pexpect
import pytest

from vllm_circus.screens.terminal import is_capable

LEFT = re.escape("\x1b[?25h\x1b[?1049l")
PROGRAM = [sys.executable, "-m", "tests.screens.stand_in"]


def spawn(*command: str, **environ: str) -> pexpect.spawn:
    env = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "COLUMNS", "LINES"}}
    env |= {"TERM": "xterm-256color", "PS1": "$ ", **environ}
    return pexpect.spawn(
        command[0], list(command[1:]), env=env, dimensions=(24, 80), encoding="utf-8", timeout=60, preexec_fn=_as_usual
    )


def _as_usual() -> None:
    """Who runs in the background of a script inherits that these are ignored."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)


@pytest.fixture
def screen() -> Iterator[pexpect.spawn]:
    """The program, its screen drawn."""
    child = spawn(*PROGRAM)
    child.expect("begins ")
    child.before_it = termios.tcgetattr(child.child_fd)
    child.sendline()
    child.expect(re.escape("\x1b[?1049h"))
    child.expect("80x24")
    yield child
    child.close(force=True)


def ended(child: pexpect.spawn) -> None:
    """Wait for the end, and see that the terminal is as before."""
    child.expect(LEFT)
    settings = termios.tcgetattr(child.child_fd)
    child.expect(pexpect.EOF)
    child.wait()
    assert settings == child.before_it


def test_leaving_gives_the_terminal_back(screen: pexpect.spawn) -> None:
    screen.send("x\x1b[A")
    screen.expect("pressed x up")
    screen.send("q")
    ended(screen)
    assert "left" in screen.before
    assert screen.exitstatus == 0


def test_an_escape_alone_is_a_key(screen: pexpect.spawn) -> None:
    screen.send("\x1b")
    screen.expect("pressed escape")
    screen.send("q")
    ended(screen)


def test_an_error_gives_the_terminal_back_first(screen: pexpect.spawn) -> None:
    screen.send("!")
    ended(screen)
    assert "as it was told" in screen.before


def test_ctrl_c_is_a_keyboard_interrupt(screen: pexpect.spawn) -> None:
    screen.sendintr()
    ended(screen)
    assert screen.exitstatus == 130


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_gives_the_terminal_back_and_then_ends_it(screen: pexpect.spawn, number: signal.Signals) -> None:
    screen.kill(number)
    ended(screen)
    assert screen.signalstatus == number


def test_a_window_that_is_resized_is_drawn_anew(screen: pexpect.spawn) -> None:
    screen.setwinsize(10, 40)
    screen.expect("40x10")
    screen.send("q")
    ended(screen)


def test_only_what_changed_is_written(screen: pexpect.spawn) -> None:
    screen.send("x")
    screen.expect(r"pressed x\.")
    assert "80x24" not in screen.before
    screen.send("q")
    ended(screen)


def test_ctrl_z_gives_the_terminal_to_the_shell_and_fg_takes_it_again() -> None:
    shell = spawn("bash", "--norc", "--noprofile", "-i")
    shell.expect_exact("$ ")
    shell.sendline(" ".join(PROGRAM))
    shell.expect("begins ")
    shell.sendline()
    shell.expect("80x24")
    shell.sendcontrol("z")
    shell.expect(LEFT)
    shell.expect("Stopped")
    shell.sendline("fg")
    shell.expect(re.escape("\x1b[?1049h"))
    shell.expect("80x24")
    shell.send("q")
    shell.expect(LEFT)
    shell.expect("left")
    shell.sendline("exit")
    shell.expect(pexpect.EOF)
    shell.close(force=True)


def test_colours_are_left_out_where_they_are_not_wanted() -> None:
    child = spawn(*PROGRAM, NO_COLOR="1")
    child.expect("begins ")
    child.sendline()
    child.expect("80x24")
    assert "\x1b[32m" not in child.before
    child.send("q")
    child.expect(pexpect.EOF)
    child.close(force=True)


@pytest.mark.parametrize("term", ["", "dumb"])
def test_a_terminal_that_cannot_is_known(term: str, monkeypatch: pytest.MonkeyPatch) -> None:
    child = spawn(*PROGRAM, TERM=term)
    child.expect("AssertionError")
    child.expect(pexpect.EOF)
    child.close(force=True)
    monkeypatch.setenv("TERM", term)
    assert not is_capable()


def test_no_screen_where_none_is_wanted() -> None:
    assert not is_capable(plain=True)
