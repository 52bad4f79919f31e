"""What `plan` decides about a setup: the same code that checks and starts models files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vllm_circus.config.load import Loaded, parse_config
from vllm_circus.errors import CircusError, ConfigError, Fault
from vllm_circus.menu.wizard import machine
from vllm_circus.menu.wizard.setup import Setup
from vllm_circus.menu.wizard.written import text_of
from vllm_circus.plan.draft import Notes, make_drafts
from vllm_circus.plan.options import merge
from vllm_circus.plan.parallelism import SIZES, spread
from vllm_circus.plan.replicas import deal_out

if TYPE_CHECKING:
    from vllm_circus.config.models import Profile
    from vllm_circus.menu.context import Context
    from vllm_circus.paths import Instance
    from vllm_circus.plan.types import Plan


#: Between a size of the profile and what the GPUs make of it.
BECOMES = "of the profile becomes"


@dataclass(frozen=True)
class Decision:
    """A plan, or every fault that forbids it."""

    plan: Plan | None
    faults: tuple[Fault, ...] = ()


def source_of(setup: Setup, instance: Instance) -> Path:
    """The file that it is, or would be, saved as: relative paths begin at its folder."""
    return instance.config_dir / "configs" / f"{setup.name or 'new'}.yaml"


def load(setup: Setup, instance: Instance) -> Loaded:
    """The setup as a models file that was read, with the stored profiles. Raises ConfigError with every fault."""
    from vllm_circus.stores.library import with_library

    return with_library(parse_config(text_of(setup).encode(), source_of(setup, instance)), instance)


def stored_profiles(instance: Instance) -> dict[str, Profile]:
    """The operator's own profiles; those that are broken are left out."""
    from vllm_circus.stores.shelf import profile_shelf

    return {entry.name: entry.value for entry in profile_shelf(instance).entries() if entry.value is not None}


def decide(setup: Setup, instance: Instance) -> Decision:
    """What would be started on this machine now."""
    from vllm_circus.cli.common import plan_of

    try:
        return Decision(plan_of(instance, load(setup, instance)))
    except ConfigError as error:
        return Decision(None, error.faults)


def spread_words(setup: Setup, context: Context, **changes: Any) -> str:
    """How the model in question is spread over its GPUs, and what of its profile that overrides."""
    entry = setup.entry.with_values(**changes)
    named = entry.with_values(name=entry.name or "model", model=entry.values.get("model") or "model")
    alone = Setup(setup.proxy, (named,), setup.defaults, setup.profiles)
    try:
        notes = Notes(load(alone, context.instance))
    except ConfigError:
        return ""
    draft = deal_out(make_drafts(notes), notes)[0]
    before = merge(draft.args_layers())
    after = spread(draft, before, notes)
    said = [notes_fault.message for notes_fault in notes.faults]
    for flag in SIZES:
        old, new = (options[flag][0] if flag in options else 1 for options in (before, after))
        if old != new and flag in before:
            said.append(f"{flag} {old} {BECOMES} {new}")
        elif flag in after and new != 1:
            said.append(f"{flag} {new}")
    return "; ".join(said)


def fit_words(setup: Setup, context: Context, cards: machine.Cards, **changes: Any) -> tuple[str, bool]:
    """Whether the model in question fits its GPUs, in one sentence, and whether that is good news.

    Empty where nobody can tell: its files are not here, it has no GPU, or there is no driver.
    """
    from vllm_circus.plan.fit import subject as subjects
    from vllm_circus.plan.fit.verdict import Verdict
    from vllm_circus.view.fit import answer
    from vllm_circus.view.units import size

    entry = setup.entry.with_values(**changes)
    if not cards.gpus or not entry.gpus:
        return "", True
    named = entry.with_values(name=entry.name or "model")
    alone = Setup(setup.proxy, (named,), setup.defaults, setup.profiles)
    try:
        loaded = load(alone, context.instance)
        subject = subjects.settle(loaded, named.name, subjects.Wishes(), cards.gpus)
        folder = subjects.find_folder(subject, loaded.folder, context.environ, context.disk)
        verdict = Verdict(subjects.make_case(subject, folder, context.disk))
    except CircusError:
        return "", True
    said, style = answer(verdict, alone=True)
    room = f" {size(verdict.room)} of each GPU are left for its cache." if verdict.room > 0 else ""
    return f"{said}{room}", style == "good"
