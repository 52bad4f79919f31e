"""Step 2, first question: where a model comes from."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from vllm_circus.logline import clean
from vllm_circus.menu.ask import Back, Choice, Heading
from vllm_circus.menu.wizard import machine
from vllm_circus.menu.wizard.checks import bad_alias, short
from vllm_circus.menu.wizard.setup import Entry, Setup, name_for
from vllm_circus.menu.wizard.walk import Step
from vllm_circus.view.units import size

if TYPE_CHECKING:
    from vllm_circus.catalogue.types import LocalModel
    from vllm_circus.menu.context import Context

STEP = "Step 2 of 3: Model Configuration"

Source = Literal["shortcut", "local", "lora", "hub"]

_PATH_STARTS = ("/", "./", "../", "~")


def source_steps(context: Context) -> tuple[Step, ...]:
    """Where it comes from, then which one it is; with adapters also those and their names."""

    def has_adapters(setup: Setup) -> bool:
        return source_of(setup) == "lora"

    return (
        Step("source", lambda setup: ask_source(setup, context)),
        Step("model", lambda setup: ask_which(setup, context)),
        Step("lora", lambda setup: ask_adapters(setup, context), has_adapters),
        Step("lora names", lambda setup: ask_adapter_names(setup, context), has_adapters),
    )


def ask_source(setup: Setup, context: Context) -> Setup:
    """Where the model comes from."""
    shortcuts, models = _shortcut_names(context), find_local(context)
    default = source_of(setup) or (None if shortcuts or models else "hub")
    answer = context.asker.choose(_title(setup), _sources(shortcuts, models), default=default)
    if answer != "lora" and "lora" in setup.entry.values and not setup.entry.shortcut:
        setup = setup.with_entry(setup.entry.without("lora"))
    return setup.with_choice("source", answer)


def source_of(setup: Setup) -> Source | None:
    """Where the model in question comes from: as it was answered, or as it looks."""
    sources: tuple[Source, ...] = ("shortcut", "local", "lora", "hub")
    answered = next((source for source in sources if source == setup.choices.get("source")), None)
    if answered is not None:
        return answered
    return "shortcut" if setup.entry.shortcut else "lora" if "lora" in setup.entry.values else None


def ask_which(setup: Setup, context: Context) -> Setup:
    """Which model of that source it is."""
    source = source_of(setup)
    if source == "shortcut":
        return setup.with_entry(_from_shortcut(setup, context))
    if source == "hub":
        return setup.with_entry(_based_on(setup, _ask_id(setup, context, "HuggingFace model")))
    title = "Base model" if source == "lora" else "Local models"
    return setup.with_entry(_based_on(setup, _choose_model(setup, context, title, other=source == "lora")))


def find_local(context: Context) -> tuple[LocalModel, ...]:
    """Every model on this machine; nothing where the settings are broken."""
    from vllm_circus.catalogue.find import find_models
    from vllm_circus.errors import CircusError
    from vllm_circus.stores.settings import read_settings

    try:
        folders = [Path(os.path.expanduser(one)) for one in read_settings(context.instance).model_folders]  # noqa: PTH111
    except CircusError:
        folders = []
    return find_models(folders, context.environ, context.disk)


def _title(setup: Setup) -> str:
    number = len(setup.models) + 1 if setup.position is None else setup.position + 1
    return f"{STEP}\nModel {number}: Model Selection"


def _sources(shortcuts: Sequence[str], models: Sequence[LocalModel]) -> list[Choice[Source] | Heading]:
    bases = [one for one in models if one.kind != "adapter"]
    adapters = [one for one in models if one.kind == "adapter"]
    none = "none was found on this machine (Settings: model folders)"
    return [
        Choice("shortcut", "Use saved shortcut", f"{len(shortcuts)} saved", "" if shortcuts else "none is saved"),
        Choice("local", "Select from local models", f"{len(bases)} on this machine", "" if bases else none),
        Choice("lora", "Serve with LoRA adapters", f"{len(adapters)} on this machine" if adapters else "name them"),
        Choice("hub", "Use HuggingFace model (auto-download)", "an id, or a folder"),
    ]


# -- the sources -------------------------------------------------------------------------------------------------------


def _shortcut_names(context: Context) -> tuple[str, ...]:
    from vllm_circus.stores.shelf import shortcut_shelf

    return tuple(entry.name for entry in shortcut_shelf(context.instance).entries() if entry.value is not None)


def _from_shortcut(setup: Setup, context: Context) -> Entry:
    from vllm_circus.stores.shelf import shortcut_shelf
    from vllm_circus.stores.writing import model_from_shortcut

    shelf = shortcut_shelf(context.instance)
    choices: list[Choice[str] | Heading] = []
    for entry in shelf.entries():
        if entry.value is not None:
            hint = entry.value.description or f"{entry.value.model}, profile {entry.value.profile or 'none'}"
            choices.append(Choice(entry.name, entry.name, hint))
    name = context.asker.choose("Saved shortcuts", choices, default=setup.entry.shortcut or None)
    if name == setup.entry.shortcut:
        return setup.entry
    values = model_from_shortcut(shelf.read(name))
    taken = _taken(setup)
    values["aliases"] = [alias for alias in values.get("aliases", ()) if alias not in taken]
    return Entry({}, name).with_values(**values, name=name_for(name, taken))


def _based_on(setup: Setup, model: str) -> Entry:
    """The entry of that model; what was answered about it stays where it is the same one."""
    if setup.entry.values.get("model") == model and not setup.entry.shortcut:
        return setup.entry
    kept = Entry({}) if setup.entry.shortcut else setup.entry.without("lora")
    return kept.with_values(model=model, name=name_for(model, _taken(setup)))


def _choose_model(setup: Setup, context: Context, title: str, *, other: bool = False) -> str:
    bases = [one for one in find_local(context) if one.kind != "adapter"]
    rooms = _rooms(bases)
    choices: list[Choice[str] | Heading] = [
        Choice(one.id, _label(one), _about(one, rooms.get(one.id, "")), "" if one.complete else clean(one.lacks))
        for one in bases
    ]
    choices += [Choice("", "Another one", "a HuggingFace id, or a folder")] if other else []
    known, now = {one.id for one in bases}, str(setup.entry.values.get("model", ""))
    while True:
        answer = context.asker.choose(title, choices, default=now if now in known else "" if now else None)
        if answer:
            return answer
        try:
            return _ask_id(setup, context, title)
        except Back:
            continue


def _label(model: LocalModel) -> str:
    """An id as it is; of a path its last two parts."""
    return clean("/".join(Path(model.id).parts[-2:]) if model.id.startswith("/") else model.id)


def _about(model: LocalModel, room: str) -> str:
    context = f"{model.context:,} tokens" if model.context else ""
    kind = {"pooling": "for embeddings", "gguf": "GGUF"}.get(model.kind, "")
    return ", ".join(filter(None, (size(model.size), context, clean(model.quantization), kind, room)))


def _rooms(models: Sequence[LocalModel]) -> dict[str, str]:
    """How many of this machine's GPUs each takes, by the size of its weights alone; nothing without GPUs."""
    cards = machine.look_at_cards(None)
    smallest = min((card.memory_total for card in cards.gpus if card.memory_total), default=0)
    if not smallest:
        return {}
    found = {}
    for model in models:
        number = next((n for n in (1, 2, 4, 8) if model.weights / n < 0.85 * smallest), 0)
        here = number and number <= len(cards.gpus)
        gpus = "1 GPU" if number == 1 else f"{number} GPUs"
        found[model.id] = f"fits {gpus}" if here else "too large for this machine"
    return found


def _ask_id(setup: Setup, context: Context, title: str) -> str:
    """A Hugging Face id or a folder, and what has to be said of it."""
    now = str(setup.entry.values.get("model", ""))
    title = f"An id such as Qwen/Qwen3-8B, or a folder\n{title}"
    text = context.asker.text(title, default=now, check=lambda text: bad_model(text, context))
    text = os.path.expanduser(text) if text.startswith("~") else text  # noqa: PTH111
    if says := not_here(text, context):
        context.asker.say(says)
    return text


def bad_model(text: str, context: Context) -> str:
    """Neither a Hugging Face id nor a folder of a model."""
    from vllm_circus.plan.sources import is_repo_id

    if not text:
        return "write an id such as Qwen/Qwen3-8B, or a folder such as /models/qwen3-8b"
    path = Path(os.path.expanduser(text))  # noqa: PTH111
    if text.startswith(_PATH_STARTS):
        if not path.is_absolute():
            return "write the whole path, from / or ~ on"
        return "" if context.disk.exists(path) else f"there is no {short(text)} on this machine"
    if is_repo_id(text) and "/" in text:
        return ""
    return f"{short(text)} is no Hugging Face id: write OWNER/NAME such as Qwen/Qwen3-8B, or a path from / on"


def not_here(model: str, context: Context) -> str:
    """What it means that a Hugging Face id is not on this disk; empty where it is."""
    from vllm_circus.plan.fit.weights import find_model

    if model.startswith("/") or find_model(model, Path("/"), context.environ, context.disk) is not None:
        return ""
    before = f"`vllm-circus models pull {model}` loads it before"
    before += "" if machine.has_hub() else ", with `pip install 'huggingface_hub>=1.1'`"
    return f"{model} is not on this disk: vLLM downloads it when it starts; {before}"


# -- adapters ----------------------------------------------------------------------------------------------------------


def ask_adapters(setup: Setup, context: Context) -> Setup:
    """Which adapters, those that were made for the base first. They are called by what they are called in the end."""
    entry, models = setup.entry, find_local(context)
    now = {str(one["path"]): str(one["name"]) for one in entry.values.get("lora", ())}
    choices = list(_adapter_choices(str(entry.values["model"]), models, now))
    while True:
        chosen = context.asker.pick("LoRA adapters", choices, chosen=list(now), check=_need_one)
        if "" in chosen:
            try:
                text = context.asker.text(
                    "A HuggingFace id, or a folder\nAdapter", check=lambda text: bad_adapter(text, context)
                )
            except Back:
                continue
            chosen = [*filter(None, chosen), os.path.expanduser(text)]  # noqa: PTH111
        taken = {*_taken(setup), entry.name, *entry.values.get("aliases", ())}
        named: list[dict[str, str]] = []
        for path in chosen:
            name = now.get(path) or name_for(path, {*taken, *(one["name"] for one in named)})
            named.append({"name": name, "path": path})
        return setup.with_entry(entry.with_values(lora=named))


def _adapter_choices(base: str, models: Sequence[LocalModel], now: Iterable[str]) -> Iterator[Choice[str] | Heading]:
    from vllm_circus.catalogue.adapters import adapters_of

    found = next((one for one in models if one.id == base), None)
    fitting = list(adapters_of(found, models)) if found is not None else []
    others = [one for one in models if one.kind == "adapter" and one not in fitting]
    for heading, adapters in (("made for this base", fitting), ("made for others", others)):
        if adapters:
            yield Heading(heading)
        yield from (Choice(one.id, _label(one), _about_adapter(one)) for one in adapters)
    known = {one.id for one in models}
    yield from (Choice(path, clean(path)) for path in now if path not in known)
    yield Choice("", "Another one", "a HuggingFace id, or a folder")


def _about_adapter(model: LocalModel) -> str:
    rank = f"rank {model.rank}" if model.rank else ""
    return ", ".join(filter(None, (size(model.size), rank, f"for {clean(model.base)}" if model.base else "")))


def _need_one(chosen: list[str]) -> str:
    return "" if chosen else "choose at least one with space, or go back"


def bad_adapter(text: str, context: Context) -> str:
    """Neither a Hugging Face id nor a folder with an adapter."""
    wrong = bad_model(text, context)
    path = Path(os.path.expanduser(text))  # noqa: PTH111
    if wrong or not path.is_absolute():
        return wrong
    known = context.disk.exists(path / "adapter_config.json")
    return "" if known else f"{short(text)} holds no adapter_config.json: name the adapter's own folder"


def ask_adapter_names(setup: Setup, context: Context) -> Setup:
    """A name for each, which clients ask for; Back asks for the one before."""
    lora = [dict(one) for one in setup.entry.values.get("lora", ())]
    taken = {*_taken(setup), setup.entry.name, *setup.entry.values.get("aliases", ())}
    position = 0
    while position < len(lora):
        others = taken | {str(one["name"]) for at, one in enumerate(lora) if at != position}
        title = f"Clients ask for it by this name\nName of the adapter {_last(str(lora[position]['path']))}"
        default = str(lora[position]["name"])
        try:
            lora[position]["name"] = context.asker.text(title, default=default, check=partial(bad_alias, taken=others))
        except Back:
            if position == 0:
                raise
            position -= 1
        else:
            position += 1
    return setup.with_entry(setup.entry.with_values(lora=lora))


def _last(path: str) -> str:
    return clean(path.rstrip("/").rpartition("/")[2])


def _taken(setup: Setup) -> set[str]:
    return {name for other in setup.others for name in other.names}
