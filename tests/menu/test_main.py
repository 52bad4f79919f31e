"""The main menu: it outlives what goes wrong in its entries, and is left only by who means it."""

from __future__ import annotations

import pytest

from tests.menu.conftest import Room
from tests.menu.scripted import BACK, INTERRUPT
from vllm_circus.errors import CircusError, ConfigError, Fault
from vllm_circus.menu.ask import Back
from vllm_circus.menu.context import Context
from vllm_circus.menu.main import ENTRIES, PLAIN, Entry, headline, make_asker, run_menu, wants_plain
from vllm_circus.menu.plain import PlainAsker
from vllm_circus.menu.terminal import TerminalAsker

HERE = __name__


def goes_wrong(_context: Context) -> None:
    raise CircusError("the disk is full", hint="make room")


def has_faults(_context: Context) -> None:
    raise ConfigError((Fault("a.yaml", 1, "x", "is wrong"), Fault("a.yaml", 2, "y", "is wrong too", "mend it")))


def goes_back(_context: Context) -> None:
    raise Back


def is_interrupted(_context: Context) -> None:
    raise KeyboardInterrupt


TABLE = (
    Entry("Wrong", "", f"{HERE}:goes_wrong"),
    Entry("Faults", "", f"{HERE}:has_faults"),
    Entry("Back", "", f"{HERE}:goes_back"),
    Entry("Interrupt", "", f"{HERE}:is_interrupted"),
)


def run(room: Room, *answers: object) -> None:
    run_menu(room.context(*answers), TABLE)
    assert room.asker.answers == []


def test_what_goes_wrong_is_shown_and_the_menu_goes_on(room: Room) -> None:
    run(room, "Wrong", "Faults", "Back", "Leave")
    assert room.asker.shown == [
        "error: the disk is full",
        "hint: make room",
        "(pause)",
        "error: a.yaml:1: x: is wrong",
        "error: a.yaml:2: y: is wrong too (mend it)",
        "(pause)",
    ]
    assert len(room.asker.questions) == 4


@pytest.mark.parametrize("key", [BACK, INTERRUPT])
def test_escape_and_ctrl_c_ask_before_they_leave(room: Room, key: object) -> None:
    run(room, key, False, key, True)
    assert room.asker.titles == ["Main menu", "Leave the menu? What runs goes on running."] * 2


def test_a_second_ctrl_c_leaves(room: Room) -> None:
    run(room, INTERRUPT, INTERRUPT)


def test_escape_from_the_question_stays(room: Room) -> None:
    run(room, BACK, BACK, "Leave")


def test_ctrl_c_in_an_entry_asks_too(room: Room) -> None:
    run(room, "Interrupt", False, "Leave")


def test_every_entry_leads_to_a_function(room: Room) -> None:
    from importlib import import_module

    for entry in ENTRIES:
        module, _, name = entry.target.partition(":")
        assert callable(getattr(import_module(module), name)), entry.label
    assert ENTRIES[0].label == "Multi-Model Proxy"


def test_the_headline_says_that_nothing_runs(room: Room) -> None:
    assert headline(room.instance) == "vllm-circus: nothing runs"


def test_plain_prompts_are_asked_for_by_terminal_variable_or_settings(room: Room) -> None:
    capable = {"TERM": "xterm-256color"}
    assert not wants_plain(room.instance, capable)
    assert wants_plain(room.instance, {"TERM": "dumb"})
    assert wants_plain(room.instance, {})
    assert wants_plain(room.instance, {**capable, PLAIN: "1"})
    room.instance.config_dir.mkdir(parents=True)
    settings = room.instance.config_dir / "settings.yaml"
    settings.write_text("plain: true\n")
    assert wants_plain(room.instance, capable)
    settings.write_text("plain: perhaps\n")
    assert not wants_plain(room.instance, capable)


def test_the_asker_follows() -> None:
    assert isinstance(make_asker(plain=True), PlainAsker)
    assert isinstance(make_asker(plain=False), TerminalAsker)
