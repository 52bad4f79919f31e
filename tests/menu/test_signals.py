"""Signals while a question stands on the terminal: it is given back as it was."""

from __future__ import annotations

import os
import signal
import termios
import time
from collections.abc import Callable

import psutil
import pytest

from tests.menu.conftest import PROGRAM, Terminal
from tests.menu.screen import BACKSPACE, PATIENCE, Screen


def echoes(screen: Screen) -> bool:
    """Whether the terminal shows what is typed, by lines, as a shell's user expects it."""
    modes = termios.tcgetattr(screen.child.child_fd)[3]  # local modes: termios(3)
    return bool(modes & termios.ECHO and modes & termios.ICANON)


def has_cursor(screen: Screen) -> bool:
    return screen.raw.rfind("\x1b[?25h") >= screen.raw.rfind("\x1b[?25l")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_ends_the_menu_leaves_the_terminal_as_it_was(terminal: Terminal, number: signal.Signals) -> None:
    with terminal() as screen:
        screen.await_question("Main menu")
        assert not echoes(screen)
        os.kill(screen.child.pid, number)
        screen.await_end()
        assert screen.child.signalstatus == number
        assert has_cursor(screen)
        assert "Main menu" not in screen.text


def test_a_terminal_that_has_gone_ends_the_menu_and_is_no_bug(terminal: Terminal) -> None:
    with terminal() as screen:
        screen.await_question("Main menu")
        screen.child.ptyproc.fileobj.close()
        screen.child.ptyproc.closed = True  # nothing else of pexpect's closing: that would send signals
        deadline = time.monotonic() + PATIENCE
        while screen.child.isalive():
            assert time.monotonic() < deadline, "it did not end"
            time.sleep(0.05)
    assert list(terminal.home.rglob("crash-*")) == []


def typed(screen: Screen) -> None:
    screen.send("\x1a")


def sent(screen: Screen) -> None:
    """As `kill -TSTP` does."""
    shell = psutil.Process(screen.child.pid)
    os.kill(shell.children()[0].pid, signal.SIGTSTP)


@pytest.mark.parametrize("stop", [typed, sent], ids=["ctrl-z", "sigtstp"])
def test_a_stopped_menu_lends_the_terminal_and_asks_again_when_it_goes_on(
    terminal: Terminal, stop: Callable[[Screen], None]
) -> None:
    environ = {**terminal.environ, "PS1": "shell> ", "HISTFILE": ""}
    with Screen("bash", ["--norc", "--noprofile", "-i"], environ) as screen:
        screen.await_text("shell>")
        screen.send(f"{PROGRAM}\r")
        screen.answer("Main menu", "\r")
        screen.answer("Multi-Model Proxy", "new", "\r")
        screen.answer("Host", "7")
        screen.await_text("0.0.0.07")
        stop(screen)
        screen.await_text("Stopped")
        screen.send("echo $((6*7))\r")
        screen.await_text("\n42")
        screen.send("fg\r")
        assert "0.0.0.07" in screen.await_question("Host")
        screen.answer("Host", BACKSPACE, "\r")
        screen.await_question("Port")
