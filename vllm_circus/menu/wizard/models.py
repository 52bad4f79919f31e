"""Step 2: the models of the set: add, change, take away, put in order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from vllm_circus.menu.ask import Back, Choice, Heading
from vllm_circus.menu.wizard.model import ask_name, model_steps
from vllm_circus.menu.wizard.setup import Entry, Setup
from vllm_circus.menu.wizard.walk import BackWith, Step, walk
from vllm_circus.view.units import counted

if TYPE_CHECKING:
    from vllm_circus.menu.context import Context
    from vllm_circus.view.outline import Outline

Keep = Callable[[Setup], None]

_ADD, _DONE = "add", "done"

#: What can be changed of a model that is there, beside the questions of the walk: label and place.
_LABELS = {
    "name": "Name",
    "model": "Model Selection",
    "aliases": "Model Alias",
    "gpus": "GPU Assignment",
    "port": "Port Assignment",
    "profile": "Profile Selection",
    "gpu_memory": "Share of the GPUs' memory",
    "args": "Engine options",
}


#: Questions that are asked together: whoever takes another's GPU has to say what part of it, and so on.
_TOGETHER = {
    "model": ("source", "model", "lora", "lora names"),
    "lora": ("lora", "lora names"),
    "gpus": ("gpus", "gpu_memory"),
    "port": ("port", "port number"),
}


def ask_models(setup: Setup, context: Context, running: Outline | None, keep: Keep) -> Setup:
    """Until somebody is done with the models. Raises BackWith."""
    if setup.pending is not None or not setup.models:
        setup = _go_on(setup, context, running, keep)
    while True:
        try:
            answer = context.asker.choose(f"Step 2 of 3: Model Configuration\n{_count(setup)}", _choices(setup))
        except Back:
            raise BackWith(setup) from None
        if answer == _DONE:
            return setup
        position = None if answer == _ADD else int(answer)
        try:
            setup = (
                add_model(setup, context, running, keep)
                if position is None
                else edit_model(setup, position, context, running, keep)
            )
        except BackWith as back:
            setup = back.setup
        if not setup.models:
            setup = _go_on(setup, context, running, keep)


def _go_on(setup: Setup, context: Context, running: Outline | None, keep: Keep) -> Setup:
    """The first model, or the one that a draft was about. Raises BackWith where there is none then."""
    try:
        return add_model(setup, context, running, keep)
    except BackWith as back:
        if not back.setup.models:
            raise
        return back.setup


def add_model(setup: Setup, context: Context, running: Outline | None, keep: Keep) -> Setup:
    """All questions about a new model. Raises BackWith, with what was answered."""
    opened = setup if setup.pending is not None else setup.opened(None)
    settled = walk(opened, model_steps(context, running, keep), keep).settled()
    keep(settled)
    return settled


def edit_model(setup: Setup, position: int, context: Context, running: Outline | None, keep: Keep) -> Setup:
    """One model: any of its questions again, another place, or away with it. Raises BackWith."""
    while True:
        entry = setup.models[position]
        choices: list[Choice[str] | Heading] = [
            Choice(place, label, _value(entry, place)) for place, label in _LABELS.items() if _offered(entry, place)
        ]
        last = len(setup.models) - 1
        choices += [
            Choice("up", "Move up", barred="it is the first" if position == 0 else ""),
            Choice("down", "Move down", barred="it is the last" if position == last else ""),
            Choice("remove", "Remove"),
        ]
        try:
            answer = context.asker.choose(f"{entry.name}: what shall change?", choices)
        except Back:
            raise BackWith(setup) from None
        if answer == "remove":
            setup = remove_model(setup, position)
            keep(setup)
            return setup
        if answer in {"up", "down"}:
            target = position + (1 if answer == "down" else -1)
            setup, position = moved(setup, position, target), target
        else:
            setup = ask_about(setup, position, answer, context, running, keep)
        keep(setup)


def ask_about(setup: Setup, position: int, place: str, context: Context, running: Outline | None, keep: Keep) -> Setup:
    """One question about a model that is there; Back leaves it as it was."""
    steps = (Step("name", lambda setup: ask_name(setup, context)), *model_steps(context, running, keep))
    wanted = [step for step in steps if step.place in _TOGETHER.get(place, (place,))]
    try:
        return walk(setup.opened(position), wanted, lambda _: None).settled()
    except BackWith:
        return setup


def remove_model(setup: Setup, position: int) -> Setup:
    """Without that model."""
    models = tuple(entry for at, entry in enumerate(setup.models) if at != position)
    return replace(setup, models=models, pending=None, position=None)


def moved(setup: Setup, position: int, target: int) -> Setup:
    """With that model at another place: the order in which they start."""
    models = list(setup.models)
    models.insert(target, models.pop(position))
    return replace(setup, models=tuple(models))


def _choices(setup: Setup) -> list[Choice[str] | Heading]:
    rows: list[Choice[str] | Heading] = [
        Choice(_ADD, "Add another model"),
        Choice(_DONE, "Done configuring models"),
    ]
    if setup.models:
        rows.append(Heading("change"))
    return rows + [Choice(str(at), entry.name, summary(entry)) for at, entry in enumerate(setup.models)]


def _count(setup: Setup) -> str:
    number = len(setup.models)
    return f"{counted(number, 'model')} {'is' if number == 1 else 'are'} configured"


def summary(entry: Entry) -> str:
    """A model in a few words."""
    values = entry.values
    gpus = f"GPU {','.join(map(str, entry.gpus))}" if entry.gpus else "CPU" if "gpus" in values else ""
    port = f"port {values['port']}" if "port" in values else ""
    return "  ".join(filter(None, (str(values.get("model", "")), gpus, port, str(values.get("profile", "")))))


def _offered(entry: Entry, place: str) -> bool:
    return place != "gpu_memory" or bool(entry.gpus)


def _value(entry: Entry, place: str) -> str:
    value = entry.values.get(place)
    if place == "model" and entry.values.get("lora"):
        return f"{value} with {counted(len(entry.values['lora']), 'adapter')}"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{name}={one}" for name, one in value.items())
    return {"port": "automatic"}.get(place, "none") if value is None else str(value)
