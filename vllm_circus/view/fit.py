"""What `vllm-circus fit` answers, as lines of at most 80 columns and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import wrap
from typing import Any

from vllm_circus.logline import clean
from vllm_circus.plan.fit.advice import Advice
from vllm_circus.plan.fit.verdict import Verdict, free_memory
from vllm_circus.view.table import Cell, Column, Line, layout
from vllm_circus.view.units import UNKNOWN, size

WIDTH = 80
_NAME = 40  # of a GPU's or a class's name, at most

Lines = Iterator[tuple[Line, bool]]


def fit_lines(name: str, verdict: Verdict, advice: tuple[Advice, ...], *, alone: bool) -> Lines:
    """The whole answer; the flag says that a line is a row of a table. `alone`: free memory is to be looked at."""
    model = verdict.case.model
    layers = f"{model.layers} layer{'s' * (model.layers != 1)}"
    yield (Cell(clean(name), "bold"), Cell(f"  {clean(model.name)[:_NAME]}, {layers}")), False
    yield (), False
    yield from _cards(verdict)
    yield (), False
    yield from _parts(verdict)
    yield (), False
    for sentence in sentences(verdict):
        yield from _wrapped(sentence)
    yield from _wrapped(*answer(verdict, alone=alone))
    for number, one in enumerate(advice):
        if number == 0:
            yield (), False
            yield (Cell("What to change:" if len(advice) == 1 else "What to change, one of these:"),), False
        yield from _advised(one)


def _advised(one: Advice) -> Lines:
    lines = wrap(f"{one.change}  ({one.effect})", WIDTH - 4, break_long_words=True)
    for number, line in enumerate(lines):
        yield (Cell(("  " if number == 0 else "    ") + line),), False


def _cards(verdict: Verdict) -> Lines:
    columns = (Column("GPU", number=True), Column("NAME"), *(Column(title, number=True) for title in _CARD_NUMBERS))
    rows = []
    for card in verdict.case.cards:
        free = free_memory(card)
        texts = (
            str(card.index),
            clean(card.name)[:_NAME] or UNKNOWN,
            size(card.memory_total or 0),
            UNKNOWN if free is None else size(free),
            f"{verdict.case.share:g}",
        )
        rows.append(tuple(map(Cell, texts)))
    for line in layout(columns, rows):
        yield line, True


_CARD_NUMBERS = ("TOTAL", "FREE", "SHARE")


def _parts(verdict: Verdict) -> Lines:
    of_each = " OF EACH GPU" if len(verdict.case.cards) > 1 else ""
    columns = (Column(f"MEMORY{of_each}"), Column("SIZE", number=True), Column("HOW IT IS KNOWN"))
    rows = [(Cell(name), Cell(size(part.size)), Cell(part.origin)) for name, part in verdict.parts.items()]
    left = f"what is left of {size(verdict.budget)}"
    if verdict.case.setup.cache_bytes is not None:
        left = "kv-cache-memory-bytes"
    room = size(verdict.room) if verdict.room >= 0 else f"-{size(-verdict.room)}"
    rows.append((Cell("KV cache"), Cell(room, "" if verdict.room >= 0 else "bad"), Cell(left)))
    for line in layout(columns, rows):
        yield line, True


def sentences(verdict: Verdict) -> Iterator[str]:
    """What the figures come to."""
    case, context = verdict.case, verdict.context
    if verdict.sequence:
        learnt = ", as its last load told" if verdict.scale != 1 else ""
        room = f": there is room for {_times(verdict.sequences or 0)}" if verdict.longest else ""
        yield (
            f"A token takes {size(verdict.token)} of cache{learnt}, a sequence of {context:,} tokens "
            f"{size(verdict.sequence)}{room}."
        )
        if any(layers.window for layers in case.model.cache) and case.setup.windows:
            yield "Some of its layers keep a window of each sequence only: long ones take less a token."
        if verdict.longest:
            made = ", which it was made for" if verdict.longest == case.model.context else ""
            yield f"The longest context that there is room for is {verdict.longest:,} tokens{made}."
    elif verdict.room >= 0:
        yield "It keeps nothing for each token: its cache does not grow with the context."
    if context > case.model.context:
        yield f"It was made for {case.model.context:,} tokens: vLLM refuses {context:,} unless it is told to."
    for what in case.model.unknown:
        yield f"Not counted: {what}."


def _times(sequences: float) -> str:
    if sequences < 10:
        return f"{int(sequences * 10) / 10:g} of them"
    return f"{int(sequences):,} of them"


def answer(verdict: Verdict, *, alone: bool) -> tuple[str, str]:
    """The last sentence, and how it is meant: `good` or `bad`."""
    if not verdict.fits:
        return f"It does not fit: {size(verdict.lacks)} more would be needed on each GPU.", "bad"
    if alone and verdict.busy:
        cards = ", ".join(f"GPU {card.index} ({size(free_memory(card) or 0)} free)" for card in verdict.busy)
        return f"It fits its share, but not now: others hold too much of {cards}.", "bad"
    return "It fits.", "good"


def _wrapped(sentence: str, style: str = "") -> Lines:
    for line in wrap(clean(sentence), WIDTH):
        yield (Cell(line, "good" if style == "good" else "bad" if style == "bad" else ""),), False


def fit_document(
    name: str, folder: str, verdict: Verdict, advice: tuple[Advice, ...], *, alone: bool
) -> dict[str, Any]:
    """The answer as JSON: sizes in bytes, of each GPU. `free_now` is null where nobody tells."""
    case = verdict.case
    told = alone and all(free_memory(card) is not None for card in case.cards)
    return {
        "model": name,
        "folder": folder,
        "architecture": case.model.name,
        "fits": verdict.fits,
        "free_now": not verdict.busy if told else None,
        "gpus": [{"index": card.index, "total": card.memory_total, "free": free_memory(card)} for card in case.cards],
        "share": case.share,
        "budget": verdict.budget,
        "parts": {name: {"bytes": part.size, "origin": part.origin} for name, part in verdict.parts.items()},
        "cache": {
            "room": verdict.room,
            "token": verdict.token,
            "sequence": verdict.sequence,
            "sequences": verdict.sequences,
            "learnt": verdict.scale != 1,
        },
        "context": {"wanted": verdict.context, "longest": verdict.longest, "made_for": case.model.context},
        "lacks": verdict.lacks,
        "not_counted": list(case.model.unknown),
        "advice": [vars(one) for one in advice],
    }
