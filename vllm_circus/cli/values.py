"""What may stand behind the options that describe a model or a profile: words of the command line to plain data."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import click

from vllm_circus.cli.completing import profiles_for_a_model

if TYPE_CHECKING:
    from vllm_circus.errors import Fault

F = TypeVar("F", bound=Callable[..., Any])

#: Behind what the values of a model are typed, by their keys in a models file.
_TYPED_AS: Mapping[str, str] = {
    "model": "MODEL",
    "aliases": "--alias",
    "gpu_memory": "--gpu-memory",
    "args": "--arg",
    **{key: f"--{key}" for key in ("name", "gpus", "port", "replicas", "profile", "lora", "engine", "priority", "env")},
}


def plain_value(text: str) -> object:
    """A value as a models file would take it: a number, true, false, null, [a, list]; anything else is text."""
    from vllm_circus.config.document import parse_document

    document = parse_document(text, "value", empty="")
    written = text.strip().lower() in {"null", "~"}
    return None if written else text if document.faults or document.data is None else document.data


def options_of(words: Sequence[str]) -> dict[str, object]:
    """`KEY=VALUE` and bare `KEY` (true) as engine options, dashes before the key left away."""
    pairs = [(word.partition("=")) for word in words]
    return {key.removeprefix("--"): plain_value(value) if equals else True for key, equals, value in pairs}


def environment_of(words: Sequence[str]) -> dict[str, str]:
    """`KEY=VALUE` as variables. Raises BadParameter."""
    return dict(_pair(word, "--env", "NAME=VALUE") for word in words)


def adapters_of(words: Sequence[str]) -> list[dict[str, str]]:
    """`NAME=PATH` as LoRA adapters; paths are ours to make absolute. Raises BadParameter."""
    from vllm_circus.cli.change import own_path

    pairs = [_pair(word, "--lora", "NAME=PATH") for word in words]
    return [{"name": name, "path": own_path(path)} for name, path in pairs]


def gpus_of(text: str) -> list[int]:
    """`0,1` as indices, `none` as no GPU at all. Raises BadParameter."""
    if text == "none":
        return []
    if not re.fullmatch(r"\d{1,4}(,\d{1,4})*", text):
        raise click.BadParameter("write indices with commas between, e.g. 0,1, or none", param_hint="--gpus")
    return list(map(int, text.split(",")))


def memory_of(text: str) -> float | str:
    """A fraction, or an amount such as `20 GiB`. Raises BadParameter."""
    if re.fullmatch(r"\d{1,5}(\.\d{1,3})? ?GiB", text):
        return text
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise click.BadParameter("write a fraction such as 0.4, or an amount such as 20GiB", param_hint="--gpu-memory")
    return share


def _pair(word: str, option: str, form: str) -> tuple[str, str]:
    key, equals, value = word.partition("=")
    if not (key and equals):
        raise click.BadParameter(f"{word!r} has not the form {form}", param_hint=option)
    return key, value


def engine_options(command: F) -> F:
    """Adds `--arg` and `--env`, as often as wanted."""
    arg = click.option(
        "--arg", "args", metavar="KEY=VALUE", multiple=True, help="An option of `vllm serve`; repeatable."
    )
    env = click.option("--env", metavar="NAME=VALUE", multiple=True, help="A variable of the engine; repeatable.")
    return arg(env(command))


def model_options(command: F) -> F:
    """Adds what a model and a shortcut have in common."""
    options = (
        click.option(
            "--alias", "aliases", metavar="NAME", multiple=True, help="A further name for clients; repeatable."
        ),
        click.option(
            "--profile", metavar="NAME", shell_complete=profiles_for_a_model, help="The profile whose options it gets."
        ),
        click.option("--lora", metavar="NAME=PATH", multiple=True, help="A LoRA adapter; repeatable."),
        click.option("--gpu-memory", metavar="X", help="Its part of each GPU: a fraction (0.4) or an amount (20GiB)."),
        click.option("--engine", type=click.Choice(["vllm", "simulator"]), help="What serves it."),
        click.option("--priority", type=int, metavar="N", help="Higher is started first."),
    )
    command = engine_options(command)
    for option in reversed(options):
        command = option(command)
    return command


def described(
    *,
    aliases: Sequence[str],
    profile: str | None,
    lora: Sequence[str],
    gpu_memory: str | None,
    engine: str | None,
    priority: int | None,
    args: Sequence[str],
    env: Sequence[str],
) -> dict[str, Any]:
    """What `model_options` came to, as it stands in a models file; what was not said is left out."""
    said: dict[str, Any] = {
        "aliases": list(aliases),
        "profile": profile,
        "engine": engine,
        "priority": priority,
        "gpu_memory": memory_of(gpu_memory) if gpu_memory is not None else None,
        "args": options_of(args),
        "env": environment_of(env),
        "lora": adapters_of(lora),
    }
    return {key: value for key, value in said.items() if value is not None and value not in ([], {})}


def told_by_option(fault: Fault, position: int, *, typed: Mapping[str, Any]) -> Fault:
    """A fault of the model that is to stand at that position of a file, by what it was typed as; others as they are.

    `typed` is what the command line says of the model; the rest comes from a shortcut, or is made.
    """
    place = re.fullmatch(rf"models\[{position}\]\.?((\w*)\.?(.*))", fault.where)
    if place is None:
        return fault
    whole, key, inside = place.groups()
    message, fix = (text.replace("(line ", f"({fault.file}, line ") for text in (fault.message, fault.fix))
    fault = replace(fault, message=message, fix=fix)
    if not _is_typed(typed.get(key), inside):
        return replace(fault, file="the model to be added", line=0, where=whole)
    named = f"{_TYPED_AS[key]} {inside}" if isinstance(typed[key], dict) and inside else _TYPED_AS[key]
    return replace(fault, file=named, line=0, where="")


def _is_typed(value: object, inside: str) -> bool:
    """Whether a part of what was typed is meant; an option or a variable may be another's."""
    if not isinstance(value, dict):
        return value is not None
    from vllm_circus.config.places import show_value

    return not inside or any(inside.startswith((key, f"[{show_value(key)}]")) for key in value)
