"""From what was asked to a case: a model of the models file, or a path, on the GPUs that it is to have.

A path is planned like a model of a file that holds nothing else, so that all rules are the same.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vllm_circus.config.load import Loaded
from vllm_circus.config.models import Config, Model, option_flag
from vllm_circus.errors import CircusError, ConfigError
from vllm_circus.facts import Disk
from vllm_circus.gpu import Gpu
from vllm_circus.plan.draft import Draft, Notes, make_drafts
from vllm_circus.plan.environment import own_environment
from vllm_circus.plan.fit.architecture import read_architecture
from vllm_circus.plan.fit.fields import BadModel
from vllm_circus.plan.fit.lessons import Lesson, as_logged
from vllm_circus.plan.fit.setup import read_setup
from vllm_circus.plan.fit.verdict import Case
from vllm_circus.plan.fit.weights import find_model, read_config, weigh
from vllm_circus.plan.gpus import check_gpus
from vllm_circus.plan.memory import USUAL_SHARE, is_utilization, share_of, with_share, written_share
from vllm_circus.plan.options import Merged, merge
from vllm_circus.plan.parallelism import spread
from vllm_circus.plan.replicas import deal_out

_SIZE = re.compile(r"(\d{1,7}(?:\.\d{1,3})?) ?(GiB|GB|G|MiB|MB|M)", re.IGNORECASE)
_UNITS = {"gib": 1 << 30, "g": 1 << 30, "gb": 10**9, "mib": 1 << 20, "m": 1 << 20, "mb": 10**6}


@dataclass(frozen=True)
class Wishes:
    """What the command line says instead of the file; None for nothing."""

    gpus: tuple[int, ...] | None = None
    gpu_memory: float | str | None = None
    context: int | None = None


@dataclass(frozen=True)
class Subject:
    """A model that is to be judged, with its options settled."""

    draft: Draft
    options: dict[str, Any]
    cards: tuple[Gpu, ...]
    share: float


def size_of_text(text: str) -> int | None:
    """`80GiB`, `24 GB` or `512MiB` in bytes; None for anything else, and for nothing."""
    found = _SIZE.fullmatch(text.strip())
    return int(float(found[1]) * _UNITS[found[2].lower()]) or None if found else None


def stated_gpus(memory: int, indices: tuple[int, ...]) -> tuple[Gpu, ...]:
    """GPUs of a size that somebody named, on a machine that has none."""
    return tuple(Gpu(index, "", "", memory, None, None, None) for index in indices)


def loaded_path(value: str) -> Loaded:
    """A models file that holds only the model of that path or Hugging Face id; relative paths begin here."""
    return Loaded(Config(models=[Model(name="model", model=value)]), Path("command line"), {})


def settle(loaded: Loaded, name: str, wishes: Wishes, gpus: tuple[Gpu, ...]) -> Subject:
    """The model's options, GPUs and share, as `check` would have them, and with the wishes in their place.

    Raises:
        ConfigError: what is written for it cannot be.
        CircusError: it has no GPU, or an engine of which nobody knows what it takes.
    """
    notes = Notes(_wished(loaded, name, wishes))
    (whole,) = make_drafts(notes)
    check_gpus((whole,), gpus, notes)
    draft = deal_out((whole,), notes)[0]
    if draft.command is not None:
        raise CircusError(f"{name} is a command of your own", hint="nobody here knows what memory it takes")
    if draft.gpus == ():
        raise CircusError(f"{name} has no GPU (`gpus: []`)", hint="`--gpus 0` asks about that one")
    share = share_of(draft, gpus, notes)
    merged = spread(draft, with_share(draft, merge(draft.args_layers()), share, notes), notes)
    if notes.faults:
        raise ConfigError(tuple(notes.faults))
    return subject_of(draft, merged, share, gpus)


def subject_of(draft: Draft, merged: Merged, share: float | None, gpus: tuple[Gpu, ...]) -> Subject:
    """An engine whose options are settled; where its GPUs are left open, the first ones are taken."""
    options = {flag: value for flag, (value, _) in merged.items()}
    if draft.gpus is None:
        cards = gpus[: read_setup(options, 0, "").gpus]
    else:
        cards = tuple(gpu for gpu in gpus if gpu.index in draft.gpus)
    return Subject(draft, options, cards, share or written_share(merged) or USUAL_SHARE)


def _wished(loaded: Loaded, name: str, wishes: Wishes) -> Loaded:
    """The file with that model alone, and with the wishes written into it."""
    model = next(model for model in loaded.config.models if model.name == name)
    index = loaded.config.models.index(model)
    changes: dict[str, Any] = {}
    if wishes.gpus is not None:
        changes |= {"gpus": list(wishes.gpus), "replicas": 1}
    if wishes.gpu_memory is not None:
        changes["gpu_memory"] = wishes.gpu_memory
        changes["args"] = {flag: value for flag, value in model.args.items() if not is_utilization(option_flag(flag))}
    if wishes.context is not None:
        args = changes.get("args", model.args)
        kept = {flag: value for flag, value in args.items() if option_flag(flag) != "max-model-len"}
        changes["args"] = kept | {"max-model-len": wishes.context}
    config = loaded.config.model_copy(update={"models": [model.model_copy(update=changes)]})
    lines = {
        (("models", 0, *place[2:]) if place[:2] == ("models", index) else place): line
        for place, line in loaded.lines.items()
        if place[:1] != ("models",) or place[:2] == ("models", index)
    }
    return replace(loaded, config=config, lines=lines)


def find_folder(subject: Subject, folder: Path, environ: Mapping[str, str], disk: Disk) -> Path:
    """Where the model's files are. Raises BadModel where they are not on this machine."""
    value = subject.draft.own.model
    revision = str(subject.options.get("revision") or "main")
    found = find_model(value, folder, dict(environ) | own_environment(subject.draft), disk, revision)
    if found is None:
        pull = ["models", "pull", value, *(["--revision", revision] if revision != "main" else [])]
        hint = f"name a folder that exists, or fetch it first: `vllm-circus {shlex.join(pull)}`"
        raise BadModel(f"{value!r} is neither a folder nor in Hugging Face's cache on this machine", hint=hint)
    return found


def make_case(subject: Subject, folder: Path, disk: Disk, lesson: Lesson | None = None) -> Case:
    """The case of a model whose files are in that folder. Raises BadModel where they tell too little."""
    model = read_architecture(read_config(folder, disk))
    smallest = min(subject.cards, key=lambda card: card.memory_total or 0)
    if not smallest.memory_total:
        raise CircusError(f"GPU {smallest.index} does not tell its memory", hint="`--memory 80GiB` states it")
    setup = read_setup(subject.options, smallest.memory_total, smallest.name)
    case = Case(model, weigh(folder, subject.draft.own.model, model, disk), setup, subject.cards, subject.share)
    return _taught(case, subject, folder, lesson) if lesson is not None else case


def _taught(case: Case, subject: Subject, folder: Path, lesson: Lesson) -> Case:
    """The case with what an earlier load told, as far as it was one of the same engine."""
    logged = [as_logged(subject.options, name) for name in (subject.draft.own.model, str(folder))]
    if not any(lesson.same(options) for options in logged):
        return case
    costs = any(lesson.same_costs(options) for options in logged)
    tokens = lesson.options.get("kv_cache_dtype", "auto") == case.setup.cache_dtype
    return replace(case, lesson=lesson, costs=costs, tokens=tokens)
