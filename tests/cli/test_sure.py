"""Questions that are answered with yes or no."""

from __future__ import annotations

import io

import click
import pytest

from vllm_circus.cli.sure import confirm


@pytest.mark.parametrize(
    ("answer", "default", "sure"),
    [
        ("y", False, True),
        (" Yes ", False, True),
        ("n", True, False),
        ("NO", True, False),
        ("", True, True),
        ("", False, False),
    ],
)
def test_an_answer_is_yes_or_no(monkeypatch: pytest.MonkeyPatch, answer: str, default: bool, sure: bool) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{answer}\n"))
    assert confirm("apply this?", default=default) is sure


def test_what_is_neither_is_asked_again(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("maybe\ny\n"))
    assert confirm("apply this?", default=False) is True
    shown = capsys.readouterr()
    assert shown.out == ""
    question = "apply this? [y/N]: "
    assert shown.err == f"{question}error: that is neither yes nor no\nhint: type y or n\n{question}"


def test_the_end_of_input_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    with pytest.raises(click.Abort):
        confirm("apply this?", default=True)
