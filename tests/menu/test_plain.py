"""Numbered lines, for screen readers: no cursor is moved, and everything can be answered from a keyboard."""

from __future__ import annotations

from io import StringIO

import pytest

from vllm_circus.menu.ask import Back, Choice, Heading
from vllm_circus.menu.plain import PlainAsker

CHOICES: list[Choice[int] | Heading] = [
    Heading("cards"),
    Choice(10, "GPU 0", "80G"),
    Choice(11, "GPU 1", barred="lost"),
    Choice(12, "GPU 2"),
]


def asker(typed: str) -> PlainAsker:
    return PlainAsker(StringIO(typed), StringIO())


def written(asker: PlainAsker) -> str:
    assert isinstance(asker.write, StringIO)
    return asker.write.getvalue()


def test_a_choice_by_its_number() -> None:
    plain = asker("3\n")
    assert plain.choose("Which card?", CHOICES) == 12
    assert written(plain).splitlines()[1:6] == [
        "Which card?",
        "cards:",
        "1. GPU 0: 80G",
        "2. GPU 1: cannot be chosen: lost",
        "3. GPU 2",
    ]


def test_nothing_but_plain_text_is_written() -> None:
    plain = asker("9\nGPU\n\n2\n?\ngpu 2\n")
    assert plain.choose("a\x1b[2Jb", CHOICES) == 12
    text = written(plain)
    assert all(line.isprintable() for line in text.split("\n"))
    assert "there is no 9" in text
    assert "several are called so" in text
    assert "GPU 1 cannot be chosen: lost" in text
    assert text.count("1. GPU 0: 80G") == 2  # once more for the question mark


def test_enter_takes_the_default() -> None:
    assert asker("\n").choose("Which?", CHOICES, default=12) == 12


def test_less_than_and_the_end_of_input_go_back() -> None:
    for typed in ("<\n", ""):
        with pytest.raises(Back):
            asker(typed).choose("Which?", CHOICES)
        with pytest.raises(Back):
            asker(typed).text("Name?")
        with pytest.raises(Back):
            asker(typed).confirm("Sure?")
        with pytest.raises(Back):
            asker(typed).pick("Which?", CHOICES)


def test_an_input_that_has_ended_for_good_does_not_go_on_for_ever() -> None:
    plain = asker("")
    for _ in range(8):
        with pytest.raises(Back):
            plain.text("Name?")
    with pytest.raises(KeyboardInterrupt):
        plain.text("Name?")


def test_numbers_and_ranges_toggle() -> None:
    plain = asker("1-3\n1, 3\n1 3\n\n")
    assert plain.pick("Which?", CHOICES, chosen=[10], explain=lambda chosen: f"sum {sum(chosen)}") == [12]
    text = written(plain)
    assert "GPU 1 cannot be chosen: lost" in text
    assert [line for line in text.splitlines() if line.startswith("sum")] == ["sum 10", "sum 12", "sum 10", "sum 12"]


def test_toggling_step_by_step() -> None:
    plain = asker("1\n3\n1\n7\nx\n\n")
    assert plain.pick("Which?", CHOICES) == [12]
    text = written(plain)
    assert "chosen: GPU 0, GPU 2" in text
    assert "there is no 7" in text
    assert "that is no number" in text


def test_a_choice_that_is_refused_is_explained_and_asked_again() -> None:
    plain = asker("\n1\n\n")
    assert plain.pick("Which?", CHOICES, check=lambda chosen: "" if chosen else "choose one") == [10]
    assert "choose one" in written(plain)


def test_text_has_a_default_that_can_be_taken_away() -> None:
    assert asker("\n").text("Name?", default="chat") == "chat"
    assert asker("-\n").text("Name?", default="chat") == ""
    assert asker("  other \n").text("Name?", default="chat") == "other"


def test_a_command_of_several_lines_is_one_answer() -> None:
    plain = asker("vllm serve a/b \\\n  --port 1 \\\n  --seed 2\nnext\n")
    assert plain.text("Command") == "vllm serve a/b --port 1 --seed 2"
    assert plain.text("Name") == "next"


def test_a_wrong_text_is_explained_and_asked_again() -> None:
    plain = asker("abc\n\x1b[31m8\n?\n8000\n")
    assert plain.text("Port", check=lambda text: "" if text.isdecimal() else "that is no port") == "8000"
    text = written(plain)
    assert "that is no port" in text
    assert "control characters" in text
    assert text.count("Port\n") == 2


def test_a_path_has_its_home_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    assert asker("~/models\n").path("Folder") == "/home/ann/models"


def test_yes_and_no() -> None:
    assert asker("\n").confirm("Sure?") is True
    assert asker("\n").confirm("Sure?", default=False) is False
    assert asker("maybe\nNo\n").confirm("Sure?") is False
    assert asker("?\nyes\n").confirm("Sure?", default=False) is True


def test_a_pause_ends_with_enter() -> None:
    plain = asker("\n")
    plain.pause()
    assert written(plain) == "Enter goes on: "


def test_the_end_of_input_at_a_pause_is_no_way_back() -> None:
    plain = asker("")
    for _ in range(8):
        plain.pause()
    with pytest.raises(KeyboardInterrupt):
        plain.pause()
