"""What a check finds: a verdict, a sentence, and what can be typed to mend it.

Rules: `fault` is for what keeps something from working, `warning` for what soon may or harms a part, `note` for what
is worth knowing and harms nothing. What cannot be told is a note, never a guess. A finding that is not `ok` says what
to do, and every text in it is fit for a terminal.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from vllm_circus.logline import clean


class Verdict(StrEnum):
    """How bad it is, the mildest first."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    FAULT = "fault"

    @property
    def rank(self) -> int:
        """0 for ok, more for worse."""
        return list(Verdict).index(self)


@dataclass(frozen=True)
class Found:
    """What a check says: its verdict, one sentence, and what to do where it is not ok."""

    verdict: Verdict
    what: str
    fix: str = ""


@dataclass(frozen=True)
class Finding:
    """The same with its place in the list: the heading that it stands under, and the name of its check."""

    group: str
    check: str
    verdict: Verdict
    what: str
    fix: str = ""


def ok(what: str) -> Found:
    """Nothing is wrong."""
    return Found(Verdict.OK, clean(what))


def note(what: str, fix: str = "") -> Found:
    """Worth knowing; harms nothing."""
    return Found(Verdict.NOTE, clean(what), clean(fix))


def warning(what: str, fix: str) -> Found:
    """Harms a part, or may soon."""
    return Found(Verdict.WARNING, clean(what), clean(fix))


def fault(what: str, fix: str) -> Found:
    """Keeps something from working."""
    return Found(Verdict.FAULT, clean(what), clean(fix))
