"""What was typed or pasted, before a question's own check sees it: text of one line, without terminal control."""

from __future__ import annotations

import re

from vllm_circus.logline import clean
from vllm_circus.menu.ask import Check

#: Characters of an answer: what one value of a models file may have.
LONGEST = 4096


def pasted(text: str) -> str:
    """What was pasted, as one line where it is a command: its lines that end with a backslash go on in the next."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").strip("\n")
    return re.sub(r"[ \t]*\\\n[ \t]*", " ", lines)


def complain(text: str, check: Check | None) -> str:
    """What is wrong with an answer, one sentence; empty where it is fine."""
    text = text.strip()
    if len(text) > LONGEST:
        return f"that is {len(text):,} characters long, and {LONGEST:,} is the most"
    if not text.isprintable():
        return "there are line ends or control characters in it (pasted?): delete them, or type it"
    return clean(check(text)) if check is not None else ""
