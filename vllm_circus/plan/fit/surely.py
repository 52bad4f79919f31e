"""A warning before the start: a model whose files alone are more than it may take.

Only what is sure is told: weights by their files' sizes, and the cache of one sequence, without any estimate. What
takes memory beside, and what an earlier load told, is `fit`'s.
"""

from __future__ import annotations

from pathlib import Path

from vllm_circus.errors import CircusError
from vllm_circus.facts import Disk
from vllm_circus.plan.draft import Notes
from vllm_circus.plan.fit.subject import Subject, make_case
from vllm_circus.plan.fit.verdict import Verdict

_GIB = 1 << 30


def warn_where_too_large(subject: Subject, folder: Path, disk: Disk, notes: Notes) -> None:
    """Note a model in a folder of this machine that cannot start; what cannot be read is left to the engine."""
    draft = subject.draft
    if draft.model.engine != "vllm" or draft.gpus == () or not subject.cards or not disk.is_folder(folder):
        return
    try:
        verdict = Verdict(make_case(subject, folder, disk))
    except CircusError:
        return
    if "reckoned" in verdict.case.weights.origin:
        return
    weights, budget = verdict.parts["weights"].size, verdict.budget
    advice = f"`vllm-circus fit {draft.group}` says what to change"
    may = f"and it may take {budget / _GIB:.1f} GiB of each GPU"
    if weights > budget:
        notes.warn(draft.at("model"), f"cannot start: its weights are {weights / _GIB:.1f} GiB, {may}; {advice}")
    elif weights + verdict.sequence > budget and not verdict.case.setup.automatic:
        one = f"one sequence of {verdict.context:,} tokens takes {verdict.sequence / _GIB:.1f} GiB"
        notes.warn(
            draft.at("model"), f"cannot start: {one} beside {weights / _GIB:.1f} GiB of weights, {may}; {advice}"
        )
