"""What the keys of a real terminal do to questions."""

from __future__ import annotations

from tests.menu.conftest import Terminal
from tests.menu.screen import ESCAPE


def test_escape_after_an_error_goes_on_and_leaves_nothing(terminal: Terminal) -> None:
    broken = terminal.home / "config" / "settings.yaml"
    broken.parent.mkdir(parents=True, exist_ok=True)
    broken.write_text("plain: [\n")
    with terminal() as screen:
        screen.answer("Main menu", "Settings", "\r")
        screen.await_text("error: ", "any key goes on")
        screen.send(ESCAPE)
        screen.await_question("Main menu")
        assert "Leave the menu?" not in screen.raw


def test_a_tiny_terminal_shows_what_is_asked(terminal: Terminal) -> None:
    with terminal(columns=20, rows=5) as screen:
        screen.await_text("Main menu")
        screen.send("\r")
        screen.await_text("Multi-Model Proxy", "more below")
        screen.send("new\r")
        screen.await_text("Host 0.0.0.0")
        assert "too small" not in screen.raw
