"""The checkup with its progress, what it found, and each finding in full with what to type; as `vllm-circus doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_circus.menu.ask import Choice, Heading
from vllm_circus.view.table import Cell, Line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vllm_circus.checkup import Finding
    from vllm_circus.menu.context import Context

_AGAIN, _ALL, _BACK = -1, -2, -3


def open_doctor(context: Context) -> None:
    """Look at everything; then show findings until somebody goes back. Ctrl-C ends the looking."""
    from vllm_circus import checkup

    findings = _look(context)
    last = 0
    while findings is not None:
        context.asker.show(checkup.lines(findings, context.width))
        context.asker.say(checkup.next_step(context.instance, findings))
        last = context.asker.choose("Doctor", _choices(findings), default=last)
        if last == _BACK:
            return
        if last == _AGAIN:
            findings = _look(context)
        elif last == _ALL:
            context.asker.show(checkup.lines(findings, context.width, everything=True))
            context.asker.pause()
        else:
            _show(context, findings[last])


def _look(context: Context) -> tuple[Finding, ...] | None:
    """What was found; None where somebody did not want to wait."""
    from vllm_circus import checkup
    from vllm_circus.cli.doctor import telling_progress

    try:
        with telling_progress() as report:
            return checkup.run(context.instance, None, report, environ=context.environ)
    except KeyboardInterrupt:
        context.asker.say("stopped looking; nothing was changed")
        return None


def _choices(findings: Sequence[Finding]) -> list[Choice[int] | Heading]:
    from vllm_circus.checkup import Verdict

    troubles = [(number, one) for number, one in enumerate(findings) if one.verdict is not Verdict.OK]
    troubles.sort(key=lambda pair: -pair[1].verdict.rank)
    return [
        *(Choice(number, f"{one.verdict}: {one.check}", one.what) for number, one in troubles),
        Choice(_ALL, "Show everything", "also what is well"),
        Choice(_AGAIN, "Look again"),
        Choice(_BACK, "Back"),
    ]


def _show(context: Context, finding: Finding) -> None:
    """One finding in full, with what to do about it."""
    from vllm_circus.menu.lines import within

    lines: list[Line] = [(Cell(f"{finding.group}, {finding.check}: {finding.verdict}", "bold"),), (Cell(finding.what),)]
    if finding.fix:
        lines.append((Cell("what to do: "), Cell(finding.fix, "cyan")))
    context.asker.show(within(lines, context.width - 1))
    context.asker.pause()
