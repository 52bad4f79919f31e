"""Step 2: the GPUs of a model, and what part of them it takes where it shares them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal

from vllm_circus.logline import clean
from vllm_circus.menu.ask import Back, Choice, Heading
from vllm_circus.menu.wizard import decided, machine
from vllm_circus.menu.wizard.checks import bad_share, read_share
from vllm_circus.menu.wizard.setup import Entry, Setup
from vllm_circus.menu.wizard.walk import NothingToAsk
from vllm_circus.plan.memory import GIB
from vllm_circus.plan.parallelism import OVERRIDE
from vllm_circus.view.units import size

if TYPE_CHECKING:
    from vllm_circus.gpu import Gpu
    from vllm_circus.menu.context import Context
    from vllm_circus.view.outline import Outline

#: What each of two models is proposed on a GPU that they share; the sum leaves room for CUDA's contexts.
_HALF = "0.45"


def ask_gpus(setup: Setup, context: Context, running: Outline | None) -> Setup:
    """Which GPUs it has. Raises NothingToAsk without a driver: that is said, and the walk goes on."""
    cards = machine.look_at_cards(running)
    if not cards.gpus:
        return _without_cards(setup, context, cards)
    title = f"Warning: {OVERRIDE}.\nGPU Assignment for {setup.entry.name}"
    chosen: Sequence[int] = setup.entry.gpus
    while True:
        chosen = context.asker.pick(
            title,
            list(_choices(setup, cards)),
            chosen=chosen,
            check=_refuse,
            explain=lambda chosen: explain(setup, context, cards, chosen),
        )
        entry = setup.entry.with_values(gpus=list(chosen) if -1 not in chosen else [])
        shared = [other for other in sharers(setup, entry) if not (_stated(setup, entry) and _stated(setup, other))]
        if not shared:
            return setup.with_entry(entry)
        try:
            answer = _ask_conflict(context, entry, shared)
        except Back:
            continue
        if answer == "share":
            return setup.with_entry(entry)


def _without_cards(setup: Setup, context: Context, cards: machine.Cards) -> Setup:
    """GPUs that it names can be taken away, as a configuration of another machine needs it; else NothingToAsk."""
    entry = setup.entry
    named = ", ".join(map(str, entry.gpus))
    takes = f"the model names GPU {named}" if named else "the model takes what it finds"
    said = f"no GPU to choose from: {clean(cards.trouble)}; {takes}"
    if not named:
        raise NothingToAsk(lambda: context.asker.say(said))
    context.asker.say(said)
    if not context.asker.confirm("Serve it from the CPU?", default=False):
        return setup
    return setup.with_entry(entry.with_values(gpus=[]).without("gpu_memory"))


def sharers(setup: Setup, entry: Entry) -> Iterable[Entry]:
    """Other models of this setup that have one of its GPUs at the same time: those that take turns with it do not."""
    turns = entry.values.get("exclusive")
    for other in setup.others:
        alternates = turns is not None and other.values.get("exclusive") == turns
        if set(other.gpus) & set(entry.gpus) and other.values.get("enabled", True) and not alternates:
            yield other


def _stated(setup: Setup, entry: Entry) -> bool:
    """Whether it says what it takes of its GPUs."""
    return "gpu_memory" in entry.values or "gpu_memory" in setup.defaults


def _choices(setup: Setup, cards: machine.Cards) -> Iterable[Choice[int] | Heading]:
    about = [_about(card) for card in cards.gpus]
    widths = [max(len(row[column]) for row in about) for column in range(3)]
    for card, row in zip(cards.gpus, about, strict=True):
        owners = [other.name for other in setup.others if card.index in other.gpus]
        belongs = f"belongs to {', '.join(owners)}" if owners else ""
        user = cards.used_by(card.index)
        used = f"used by {user}" if user and user not in owners else ""
        columns = [text.ljust(width) for text, width in zip(row, widths, strict=True)]
        hint = "  ".join([*columns, *filter(None, (belongs, used))])
        yield Choice(card.index, f"GPU {card.index}", hint.rstrip(), clean(card.fault))
    yield Choice(-1, "No GPU", "serve from the CPU")


def _about(card: Gpu) -> tuple[str, str, str]:
    """`H100 80GB HBM3`, `12.0G of 80.0G`, `37% busy`; what the card does not tell is left out."""
    total = size(card.memory_total) if card.memory_total is not None else ""
    memory = f"{size(card.memory_used)} of {total}" if card.memory_used is not None and total else total
    busy = f"{card.utilisation}% busy" if card.utilisation is not None else ""
    return clean(card.name).removeprefix("NVIDIA ")[:24], memory, busy


def _refuse(chosen: list[int]) -> str:
    if -1 in chosen and len(chosen) > 1:
        return "either GPUs, or none"
    return "" if chosen else "choose GPUs with space, or 'No GPU'"


def explain(setup: Setup, context: Context, cards: machine.Cards, chosen: Sequence[int]) -> str:
    """What the choice comes to: how the model is spread, whether it fits, with whom it shares."""
    if not chosen:
        return "nothing is chosen yet"
    if -1 in chosen:
        return "it serves from the CPU"
    gpus = f"{len(chosen)} GPUs" if len(chosen) > 1 else f"GPU {chosen[0]}"
    spread = decided.spread_words(setup, context, gpus=list(chosen))
    fits, _ = decided.fit_words(setup, context, cards, gpus=list(chosen))
    shared = [other.name for other in sharers(setup, setup.entry.with_values(gpus=list(chosen)))]
    with_whom = f", shared with {', '.join(shared)}" if shared else ""
    return f"{gpus}{with_whom}{f': {spread}' if spread else ''}. {fits}".strip()


def _ask_conflict(context: Context, entry: Entry, shared: Sequence[Entry]) -> Literal["share", "other"]:
    """GPUs that another model has: the conflict, and the ways out of it."""
    named = "; ".join(
        f"GPU {', '.join(str(one) for one in sorted(set(other.gpus) & set(entry.gpus)))} belongs to {other.name}"
        for other in shared
    )
    choices: list[Choice[Literal["share", "other"]] | Heading] = [
        Choice("share", "Share", "each of them gets a part of the memory; the parts are asked for"),
        Choice("other", "Choose other GPUs"),
    ]
    why = "A GPU has room for several models only where each says what it takes."
    return context.asker.choose(f"{named}.\n{why}\nConflict: what shall be done?", choices)


# -- the share ---------------------------------------------------------------------------------------------------------


def needs_share(setup: Setup) -> bool:
    """Whether somebody has to say what part of a GPU is whose."""
    entry = setup.entry
    return bool(entry.gpus) and ("gpu_memory" in entry.values or any(True for _ in sharers(setup, entry)))


def ask_share(setup: Setup, context: Context, running: Outline | None) -> Setup:
    """The part of each GPU that it takes, and that of those it shares with who have none yet."""
    cards = machine.look_at_cards(running)
    for other in sharers(setup, setup.entry):
        if not _stated(setup, other):
            share = _ask_one(context, other.name, _HALF, "")
            setup = setup.with_other(other.with_values(gpu_memory=share))
    now = setup.entry.values.get("gpu_memory")
    proposed = _HALF if now is None else str(now)
    while True:
        fits, _ = decided.fit_words(setup, context, cards, gpu_memory=read_share(proposed))
        share = _ask_one(context, setup.entry.name, proposed, _left(setup, cards, fits))
        fits, good = decided.fit_words(setup, context, cards, gpu_memory=share)
        if good or context.asker.confirm(f"With {share}: {fits}\nTake it all the same?", default=False):
            return setup.with_entry(setup.entry.with_values(gpu_memory=share))
        proposed = str(share)


def _ask_one(context: Context, name: str, proposed: str, more: str) -> float | str:
    how = "What it may take of each GPU's memory: a fraction such as 0.4, or an amount such as 20 GiB"
    title = "\n".join(filter(None, (more, how, f"GPU memory for {name}")))
    text = context.asker.text(title, default=proposed, check=bad_share)
    share = read_share(text)
    assert share is not None  # noqa: S101 - `bad_share` lets nothing else through
    return share


def _left(setup: Setup, cards: machine.Cards, fits: str) -> str:
    """What others have of its GPUs, and whether the proposal fits."""
    entry, parts = setup.entry, []
    for index in entry.gpus:
        card = next((card for card in cards.gpus if card.index == index), None)
        given = [(other.name, other.values.get("gpu_memory")) for other in setup.others if index in other.gpus]
        total = card.memory_total if card is not None else None
        whose = ", ".join(f"{name} has {share}" for name, share in given) or "nobody else has a part"
        parts.append(f"GPU {index} ({total / GIB:.0f} GiB): {whose}" if total else f"GPU {index}: {whose}")
    return "; ".join(parts) + (f". {fits}" if fits else "")
