"""Questions of commands that are answered with yes or no, on stderr."""

from __future__ import annotations

import click

from vllm_circus.cli.common import say

_ANSWERS = {"y": True, "yes": True, "n": False, "no": False}


def confirm(question: str, *, default: bool) -> bool:
    """Whether a person says yes; what is neither yes nor no is asked again. Raises Abort on Ctrl-C and at the end."""
    while True:
        answer: str = click.prompt(
            f"{question} [{'Y/n' if default else 'y/N'}]", default="", show_default=False, err=True
        )
        word = answer.strip().lower()
        if not word:
            return default
        if word in _ANSWERS:
            return _ANSWERS[word]
        say("error: that is neither yes nor no")
        say("hint: type y or n")
