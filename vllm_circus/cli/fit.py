"""`vllm-circus fit`: whether a model fits its GPUs, at what context, and what to change."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vllm_circus.cli.common import Session, config_file, instance_option, print_lines, running_outline, running_pid
from vllm_circus.cli.completing import models, models_files
from vllm_circus.errors import CircusError, UnknownModel
from vllm_circus.view.outline import read_plan_outline

if TYPE_CHECKING:
    from vllm_circus.config.load import Loaded
    from vllm_circus.gpu import Gpu
    from vllm_circus.paths import Instance
    from vllm_circus.plan.fit.advice import Advice
    from vllm_circus.plan.fit.lessons import Lesson
    from vllm_circus.plan.fit.subject import Subject, Wishes
    from vllm_circus.plan.fit.verdict import Verdict

_LOG_TAIL = 16 << 20  # bytes of a log that are looked through
_TELLING = ("non-default args:", "GiB", "KV cache size")


def _gpu_list(_context: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    if value is None:
        return None
    if not re.fullmatch(r"\d{1,4}(,\d{1,4})*", value):
        raise click.BadParameter("write indices with commas between, e.g. 0,1")
    return tuple(map(int, value.split(",")))


def _gpu_memory(_context: click.Context, _parameter: click.Parameter, value: str | None) -> float | str | None:
    if value is None or re.fullmatch(r"\d{1,5}(\.\d{1,3})? ?GiB", value):
        return value
    try:
        share = float(value)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise click.BadParameter("write a fraction such as 0.4, or an amount such as 20GiB")
    return share


def _memory(_context: click.Context, _parameter: click.Parameter, value: str | None) -> int | None:
    from vllm_circus.plan.fit.subject import size_of_text

    size = size_of_text(value) if value is not None else None
    if value is not None and size is None:
        raise click.BadParameter("write an amount such as 80GiB")
    return size


@click.command(short_help="Say whether a model fits its GPUs, and what to change.")
@click.argument("model", shell_complete=models)
@click.option("--context", type=click.IntRange(1, 10**9), metavar="N", help="Tokens of context, for max-model-len.")
@click.option(
    "--config",
    metavar="FILE",
    shell_complete=models_files,
    help="The models file that MODEL stands in.  [default: the running set's, else the instance's]",
)
@click.option("--gpu-memory", metavar="X", callback=_gpu_memory, help="A fraction (0.4) or an amount (20GiB).")
@click.option("--gpus", metavar="LIST", callback=_gpu_list, help="Indices, e.g. 0,1: the model is spread over them.")
@click.option("--memory", metavar="SIZE", callback=_memory, help="Size of each GPU, e.g. 80GiB, where there is none.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with sizes in bytes.")
@instance_option
@click.pass_obj
def fit(
    session: Session,
    *,
    model: str,
    context: int | None,
    config: str | None,
    gpu_memory: float | str | None,
    gpus: tuple[int, ...] | None,
    memory: int | None,
    as_json: bool,
) -> None:
    """Say whether MODEL fits its GPUs: a model of the models file, a folder, or a Hugging Face id that is on this disk.

    The models file is that of --config, else the running set's, else the instance's own. The model's files and options
    tell what it needs, and its log what it took before. Nothing is started. Exit code 1 where it does not fit.
    """
    from vllm_circus.plan.fit.subject import Wishes
    from vllm_circus.view.fit import fit_document, fit_lines

    judged = judge(session.instance, model, Wishes(gpus, gpu_memory, context), config=config, memory=memory)
    verdict, advice, alone = judged.verdict, judged.advice, judged.alone
    if as_json:
        click.echo(json.dumps(fit_document(model, str(judged.folder), verdict, advice, alone=alone), indent=2))
    else:
        print_lines(fit_lines(model, verdict, advice, alone=alone))
    if not verdict.fits or (alone and verdict.busy):
        raise click.exceptions.Exit(1)


@dataclass(frozen=True)
class Judged:
    """Whether a model fits, and what to change; `alone` is false where a set that runs may hold the memory itself."""

    verdict: Verdict
    advice: tuple[Advice, ...]
    alone: bool
    folder: Path


def judge(
    instance: Instance, model: str, wishes: Wishes, *, config: str | None = None, memory: int | None = None
) -> Judged:
    """Look at a model of the models file, or at a path or id. Raises CircusError where nobody can tell.

    The file is `config`, else the running set's, else the instance's own.
    """
    from vllm_circus.facts import Disk
    from vllm_circus.plan.fit import subject as subjects
    from vllm_circus.plan.fit.advice import advise
    from vllm_circus.plan.fit.verdict import Verdict

    disk = Disk()
    loaded, name = _find(instance, model, config)
    subject = subjects.settle(loaded, name, wishes, _cards(loaded, name, wishes, memory))
    folder = subjects.find_folder(subject, loaded.folder, os.environ, disk)
    verdict = Verdict(subjects.make_case(subject, folder, disk, _lesson(instance, subject)))
    return Judged(verdict, advise(verdict), not _runs(instance, name), folder)


def _find(instance: Instance, model: str, config: str | None) -> tuple[Loaded, str]:
    """The file that the model stands in and its name there; a path stands in one of its own."""
    from vllm_circus.config.load import load_config
    from vllm_circus.plan.fit.subject import loaded_path
    from vllm_circus.stores.library import with_library

    names: list[str] = []
    file = config_file(instance, config) if config is not None else _present_file(instance)
    if file.is_file():
        loaded = with_library(load_config(file), instance)
        names = [one.name for one in loaded.config.models]
        if model in names:
            return loaded, model
    if "/" in model or Path(model).exists():
        with suppress(ValueError):  # what the schema takes for no model: empty, or with control characters
            return loaded_path(model), "model"
    other = "`--config FILE` names another models file, and MODEL may be a folder"
    hint = f"{file} has {', '.join(names)}; {other}" if names else f"there is no {file}; {other}"
    raise UnknownModel(f"no model {model!r}", hint=hint)


def _present_file(instance: Instance) -> Path:
    """The models file that counts where none is named: the running set's, else the instance's own."""
    outline = running_outline(instance)
    return Path(outline.source) if outline is not None else instance.config_file


def _cards(loaded: Loaded, name: str, wishes: Wishes, memory: int | None) -> tuple[Gpu, ...]:
    """The machine's GPUs, or those that it is said to have. Raises NoDriver where nobody knows any."""
    from vllm_circus.gpu import NoDriver, list_gpus
    from vllm_circus.plan.fit.subject import stated_gpus

    if memory is not None:
        listed = next(model.gpus for model in loaded.config.models if model.name == name)
        return stated_gpus(memory, tuple(dict.fromkeys(wishes.gpus or listed or range(16))))
    try:
        cards = list_gpus()
    except NoDriver as error:
        raise NoDriver(str(error), hint=f"`--memory 80GiB` states a GPU's size; {error.hint}") from error
    if not cards:
        raise CircusError("this machine has no GPU", hint="`--memory 80GiB` states one's size")
    return cards


def _lesson(instance: Instance, subject: Subject) -> Lesson | None:
    """What the model's log tells of its loads, the former file's included."""
    from vllm_circus.plan.fit.lessons import learn

    path = instance.log(subject.draft.name)
    return learn(line for file in (path.with_name(path.name + ".1"), path) for line in _telling_lines(file))


def _telling_lines(path: Path) -> Iterator[str]:
    """The lines at the end of a log that may tell something."""
    try:
        with path.open("rb") as file:
            file.seek(max(path.stat().st_size - _LOG_TAIL, 0))
            for line in file:
                text = line.decode("utf-8", "replace")
                if any(word in text for word in _TELLING):
                    yield text
    except OSError:
        return


def _runs(instance: Instance, name: str) -> bool:
    """Whether the model is one of a set that runs: it may hold the memory itself."""
    outline = read_plan_outline(instance)
    return outline is not None and running_pid(instance) is not None and name in {one.group for one in outline.models}
