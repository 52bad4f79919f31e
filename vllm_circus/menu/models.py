"""Models on this disk: what there is, whether it fits, and choosing one; as `vllm-circus models`.

Rules: the disk is looked at anew for each list; a model that is not whole is shown with what it lacks; one that
somebody uses is removed only after that was said.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vllm_circus.menu.ask import Choice, Heading
from vllm_circus.menu.trying import attempt
from vllm_circus.view.table import Cell

if TYPE_CHECKING:
    from vllm_circus.catalogue.types import LocalModel
    from vllm_circus.menu.context import Context

_KINDS = {"model": "", "gguf": "GGUF", "adapter": "LoRA adapter", "pooling": "embeddings or scores"}
_OTHER, _PULL, _FOLDERS, _BACK = "+other", "+pull", "+folders", "+back"


def open_models(context: Context) -> None:
    """Every model of this disk, until somebody goes back. Raises ConfigError where the settings are broken."""
    from vllm_circus.cli import stock

    last = ""
    while True:
        survey = stock.look(context.instance)
        for note in survey.notes:
            context.asker.say(f"note: {note}")
        choices: list[Choice[str] | Heading] = [
            Choice(_key(model), model.id, summary(model)) for model in survey.models
        ]
        choices += [
            Heading("or" if survey.models else "none was found"),
            Choice(_PULL, "Download a model", "from Hugging Face, into its cache"),
            Choice(_FOLDERS, "Folders", "where else models are looked for"),
            Choice(_BACK, "Back"),
        ]
        last = context.asker.choose("Models on this disk", choices, default=last)
        if last == _BACK:
            return
        if last == _PULL:
            attempt(context, pull)
        elif last == _FOLDERS:
            from vllm_circus.menu.settings import ask_folders

            attempt(context, ask_folders)
        else:
            attempt(context, open_model, last)


def open_model(context: Context, key: str) -> None:
    """Everything about one model, and what can be done with it. Raises Back."""
    from vllm_circus.cli import stock

    doing: dict[str, Any] = {"details": show, "fit": show_fit, "remove": remove}
    last = "details"
    while True:
        survey = stock.look(context.instance)
        model = next((one for one in survey.models if _key(one) == key), None)
        if model is None:
            context.asker.say("It is not on this disk any more.")
            return
        choices = [
            Choice("details", "Details", "files, adapters, who uses it"),
            Choice("fit", "Fit", "whether it fits this machine's GPUs, and what to change"),
            Choice("remove", "Remove", "from the disk, for good"),
            Choice(_BACK, "Back"),
        ]
        last = context.asker.choose(model.id, choices, default=last)
        if last == _BACK:
            return
        attempt(context, doing[last], model)


def show(context: Context, model: LocalModel) -> None:
    """Everything that is known about a model."""
    from vllm_circus.catalogue.files import cut_short, files_of
    from vllm_circus.cli import stock
    from vllm_circus.menu.lines import within
    from vllm_circus.view.catalogue import show_lines

    rooms = stock.with_rooms(stock.look(context.instance).models)
    files, faults = files_of(model, context.disk), cut_short(model, context.disk)
    lines = show_lines(rooms, model, files, faults, stock.uses_of(context.instance, model))
    context.asker.show(within(lines, context.width - 1))
    context.asker.pause()


def show_fit(context: Context, model: LocalModel) -> None:
    """Whether it fits, as `vllm-circus fit` says it. Raises CircusError where nobody can tell."""
    from vllm_circus.cli.fit import judge
    from vllm_circus.menu.lines import flat, within
    from vllm_circus.plan.fit.subject import Wishes
    from vllm_circus.view.fit import fit_lines

    judged = judge(context.instance, model.id, Wishes())
    lines = fit_lines(model.id, judged.verdict, judged.advice, alone=judged.alone)
    context.asker.show(within(flat(lines), context.width - 1))
    context.asker.pause()


def _sure(context: Context, model: LocalModel) -> bool:
    """What the hub gives again is asked about; what is in a folder of one's own has to be named. Raises Back."""
    if model.source == "hub":
        return context.asker.confirm(f"Remove {model.id} from the disk?", default=False)
    last = model.id.rstrip("/").rpartition("/")[2]
    named = context.asker.text(f"Type {last} to remove it; nothing keeps it")
    return named == last


def pull(context: Context) -> None:
    """Ask for a model and fetch it from the hub. Ctrl-C breaks it off; the next time goes on. Raises CircusError."""
    from vllm_circus.cli.pulling import pull as fetch

    model = context.asker.text("Hugging Face id, such as Qwen/Qwen3-8B", check=_bad_id)
    try:
        context.asker.say(f"it is in {fetch(context.instance, model)}")
    except KeyboardInterrupt:
        context.asker.say("broken off; the next time goes on")
    context.asker.pause()


def _bad_id(text: str) -> str:
    from vllm_circus.plan.sources import is_repo_id

    known = is_repo_id(text.partition(":")[0]) and "/" in text
    return "" if known else "write OWNER/NAME such as Qwen/Qwen3-8B; a GGUF file's kind behind a colon"


def remove(context: Context, model: LocalModel) -> None:
    """Take it off the disk, after saying what goes and who uses it. Raises NotRemovable."""
    from vllm_circus.catalogue.removal import carry_out
    from vllm_circus.cli import stock
    from vllm_circus.view.catalogue import removal_lines
    from vllm_circus.view.units import size

    uses = stock.uses_of(context.instance, model)
    for use in uses:
        context.asker.say(f"warning: it is used by {use}")
    removal = stock.propose_removal(context.instance, stock.look(context.instance), model, force=True)
    context.asker.say(f"{size(removal.size)} would be free. This goes:")
    context.asker.show((Cell(line),) for line in removal_lines(removal))
    if _sure(context, model):
        context.asker.say(f"removed {model.id}: {size(carry_out(removal))} are free")


def _key(model: LocalModel) -> str:
    return f"{model.id}@{model.revision}"


def choose_model(context: Context, default: str = "") -> str:
    """A model of this disk, or whatever is typed: an id or a path. Raises Back."""
    from vllm_circus.cli import stock

    found = [model for model in stock.look(context.instance).models if model.kind != "adapter"]
    choices: list[Choice[str] | Heading] = [Choice(model.id, model.id, summary(model)) for model in found]
    choices.append(Choice(_OTHER, "Another", "a Hugging Face id, or a folder"))
    chosen = context.asker.choose("Model", choices, default=default if default else _OTHER)
    return chosen if chosen != _OTHER else _ask_id(context, "Model", default)


def _ask_id(context: Context, title: str, default: str = "") -> str:
    """A Hugging Face id, or a path. Raises Back."""
    from vllm_circus.menu.wizard.source import bad_model

    return context.asker.text(title, default=default, check=lambda text: bad_model(text, context))


def choose_adapters(context: Context, model: str, present: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """LoRA adapters on top of a model, each with a name of its own. Raises Back."""
    from vllm_circus.catalogue.adapters import adapters_of
    from vllm_circus.cli import stock

    models = stock.look(context.instance).models
    base = next((one for one in models if one.id == model), None)
    fitting = adapters_of(base, models) if base else ()
    known = {str(one["path"]): dict(one) for one in present}
    choices: list[Choice[str] | Heading] = [Choice(path, path, f"as {one['name']}") for path, one in known.items()]
    choices += [Choice(one.id, one.id, summary(one)) for one in fitting if one.id not in known]
    choices.append(Choice(_OTHER, "Another", "a folder, or a Hugging Face id"))
    chosen = context.asker.pick("LoRA adapters", choices, chosen=list(known))
    paths = [path if path != _OTHER else _ask_id(context, "Adapter") for path in chosen]
    return [known.get(path) or {"name": _ask_name(context, path), "path": path} for path in dict.fromkeys(paths)]


def _ask_name(context: Context, path: str) -> str:
    from vllm_circus.config.models import ALIAS_PATTERN

    name = re.sub(r"[^A-Za-z0-9._-]+", "-", path.rstrip("/").rpartition("/")[2]).strip("-._")[:60]
    complaint = "a name that clients ask for: letters, digits and . _ : / @ + -"
    return context.asker.text(
        f"Clients ask for {path} as",
        default=name,
        check=lambda text: "" if re.match(ALIAS_PATTERN, text) else complaint,
    )


def summary(model: LocalModel) -> str:
    """One line about a model, for a list."""
    from vllm_circus.view.units import size

    parts = [
        _KINDS[model.kind],
        model.architecture,
        size(model.size),
        model.quantization,
        f"context {model.context:,}" if model.context else "",
        f"rank {model.rank}" if model.rank else "",
        f"on {model.base}" if model.base else "",
        model.lacks,
    ]
    return ", ".join(part for part in parts if part)
