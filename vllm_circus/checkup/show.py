"""The findings as lines for a terminal, and as one document for programs.

Rules: a verdict is a word, and its colour only repeats it; no line is longer than the width, but for what has to be
pasted whole; what is ok is a number in its heading, unless all is wanted.
"""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vllm_circus.checkup.findings import Finding, Verdict
from vllm_circus.paths import Instance
from vllm_circus.view.outline import command_for
from vllm_circus.view.starting import start_words
from vllm_circus.view.table import Cell, Line, Style
from vllm_circus.view.units import counted

_STYLES: dict[Verdict, Style] = {
    Verdict.OK: "good",
    Verdict.NOTE: "cyan",
    Verdict.WARNING: "busy",
    Verdict.FAULT: "bad",
}
_NARROWEST = 40
_INDENT = " " * len("  warning  ")
_COMMAND = re.compile(r"`[^`]*`")
#: A blank at which no line is broken, while lines are made.
_NO_BREAK = "\0"


def lines(findings: Sequence[Finding], width: int, *, everything: bool = False) -> Iterator[Line]:
    """A heading for each group, below it what is not ok with its fix, and a line that sums all up."""
    for group in dict.fromkeys(finding.group for finding in findings):
        members = [finding for finding in findings if finding.group == group]
        yield Cell(group, "bold"), Cell(f"  {sum_up(members)}", "dim")
        for finding in members:
            if everything or finding.verdict is not Verdict.OK:
                yield from _entry(finding, max(width, _NARROWEST))
    yield ()
    yield (Cell(f"{len(findings)} findings: {sum_up(findings)}", "bold"),)


def sum_up(findings: Sequence[Finding]) -> str:
    """How many there are of each verdict, the worst first: `1 fault, 2 warnings, 8 ok`."""
    numbers = {verdict: sum(finding.verdict is verdict for finding in findings) for verdict in reversed(Verdict)}
    parts = [counted(number, verdict) for verdict, number in numbers.items() if number and verdict is not Verdict.OK]
    return ", ".join([*parts, *([f"{numbers[Verdict.OK]} ok"] if numbers[Verdict.OK] else [])])


def _entry(finding: Finding, width: int) -> Iterator[Line]:
    first, *rest = _wrapped(f"{finding.check}: {finding.what}", width - len(_INDENT))
    yield Cell("  "), Cell(f"{finding.verdict:<7}", _STYLES[finding.verdict]), Cell("  "), Cell(first)
    for line in rest:
        yield (Cell(_INDENT + line),)
    for line in _wrapped(f"fix: {finding.fix}", width - len(_INDENT)) if finding.fix else ():
        yield Cell(_INDENT), Cell(line, "cyan")


def _wrapped(text: str, width: int) -> list[str]:
    """Broken at blanks; a path, and a command between backticks, stay whole, so that they can be pasted."""
    whole = _COMMAND.sub(lambda found: found[0].replace(" ", _NO_BREAK), " ".join(text.split()))
    lines = textwrap.wrap(whole, width, break_long_words=False, break_on_hyphens=False)
    return [line.replace(_NO_BREAK, " ") for line in lines]


def next_step(instance: Instance, findings: Sequence[Finding], config: Path | None = None) -> str:
    """What to do now, one line; `config` is the models file that was named."""
    again = f"`{command_for(instance.name, f'doctor {shlex.quote(str(config))}' if config else 'doctor')}`"
    faults = [finding for finding in findings if finding.verdict is Verdict.FAULT]
    if faults:
        return f"next: mend {'the fault' if len(faults) == 1 else 'the faults, from the top'}; then {again} again"
    circusd = next((finding for finding in findings if finding.check == "circusd"), None)
    if circusd is not None and circusd.verdict is Verdict.OK:
        return f"next: `{command_for(instance.name, 'status')}`"
    if not any(finding.check == "models-file" and finding.verdict is Verdict.OK for finding in findings):
        return "next: `vllm-circus demo` shows how it works, without a GPU"
    return f"next: {start_words(instance, config)}"


def document(instance: Instance, findings: Sequence[Finding]) -> dict[str, Any]:
    """Everything that was found, for programs."""
    numbers = {str(verdict): sum(finding.verdict is verdict for finding in findings) for verdict in Verdict}
    return {
        "instance": instance.name,
        "ok": not numbers["fault"],
        "numbers": numbers,
        "findings": [
            {
                "group": finding.group,
                "check": finding.check,
                "verdict": str(finding.verdict),
                "what": finding.what,
                "fix": finding.fix,
            }
            for finding in findings
        ],
    }
