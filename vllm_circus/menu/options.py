"""Engine options and environment variables, asked for as `name=value` and checked as the models file is.

Rules: a value is read as YAML reads it, so that `8192` is a number, `true` a bare flag and `{...}` JSON for the engine;
what this program sets itself is refused with the place where it belongs; nothing is kept until all of it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vllm_circus.menu.ask import Back, Choice, Heading, throws_away

if TYPE_CHECKING:
    from vllm_circus.menu.ask import Asker
    from vllm_circus.plan.draft import Notes

#: Proposed while somebody types; every other option of `vllm serve` may be written as well.
COMMON = (
    "dtype",
    "enable-auto-tool-choice",
    "enable-chunked-prefill",
    "enable-expert-parallel",
    "enable-prefix-caching",
    "enforce-eager",
    "gpu-memory-utilization",
    "kv-cache-dtype",
    "max-model-len",
    "max-num-batched-tokens",
    "max-num-seqs",
    "pipeline-parallel-size",
    "quantization",
    "reasoning-parser",
    "tensor-parallel-size",
    "tool-call-parser",
)
_NAME_AND_VALUE = re.compile(r"(?P<name>(?:--)?[A-Za-z0-9][A-Za-z0-9_.-]*)(?:\s*[=:]\s*|\s+|$)(?P<value>.*)", re.DOTALL)
_ADD, _DONE = object(), object()

Parse = Callable[[str], tuple[str, Any]]


def edit_options(asker: Asker, title: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of `vllm serve`, changed until somebody is done. Raises Back where nothing is to be kept."""
    return _edit(asker, title, options, parse_option, "max-model-len=8192", show_option, COMMON)


def edit_environment(asker: Asker, title: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Environment variables of an engine, changed until somebody is done. Raises Back as `edit_options` does."""
    return _edit(asker, title, environment, parse_variable, "VLLM_LOGGING_LEVEL=DEBUG", str, ())


def parse_option(text: str) -> tuple[str, Any]:
    """`max-model-len=8192`, `--max-model-len 8192` or `enforce-eager` alone: the name, and the value as YAML reads it.

    Raises ValueError with a sentence.
    """
    from pydantic import ValidationError

    from vllm_circus.config.document import parse_document
    from vllm_circus.config.explain import explain
    from vllm_circus.config.models import Profile, option_flag

    match = _NAME_AND_VALUE.fullmatch(text)
    if match is None:
        raise ValueError("write an option and its value, such as max-model-len=8192")
    name, value = option_flag(match["name"]), match["value"].strip() or "true"
    if re.match(r"[^\"'\[{]*(^|\s)#", value):
        raise ValueError("what begins with '#' is a comment for YAML: quote the value")
    document = parse_document(f"args:\n  ? {name}\n  : {value}\n", "")
    if document.faults:
        raise ValueError(_sentence(document.faults[0].message, document.faults[0].fix))
    try:
        args = Profile.model_validate(document.data).args
    except ValidationError as error:
        _, message, fix = explain(error, document)[0]
        raise ValueError(_sentence(message, fix)) from None
    if complaint := complain_of(args):
        raise ValueError(complaint)
    return next(iter(args.items()))


def parse_variable(text: str) -> tuple[str, str]:
    """`NAME=value`. Raises ValueError with a sentence."""
    from vllm_circus.config.models import ENV_PATTERN
    from vllm_circus.plan.draft import Layer
    from vllm_circus.plan.environment import check_environment

    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError("write a variable and its value, such as VLLM_LOGGING_LEVEL=DEBUG")
    if not re.match(ENV_PATTERN, name.strip()):
        raise ValueError("a variable's name is made of letters, digits and '_', and begins with no digit")
    notes = _notes()
    check_environment(Layer((), {name.strip(): value}), notes)
    for fault in notes.faults:
        raise ValueError(_sentence(fault.message, fault.fix))
    return name.strip(), value.strip()


def refuse(typed: str, parse: Parse) -> str:
    """What is wrong with an answer, one sentence; empty where nothing is, or nothing was typed."""
    try:
        if typed:
            parse(typed)
    except ValueError as error:
        return str(error)
    return ""


def complain_of(options: Mapping[str, Any]) -> str:
    """What is wrong with options that stand together, one sentence; empty where nothing is."""
    from vllm_circus.plan.draft import Layer
    from vllm_circus.plan.options import check_layer

    notes = _notes()
    check_layer(Layer((), dict(options)), notes)
    return next((_sentence(fault.message, fault.fix) for fault in notes.faults), "")


def _notes() -> Notes:
    """What is found about options that belong to no file."""
    from vllm_circus.config.load import Loaded
    from vllm_circus.config.models import Config, Model
    from vllm_circus.plan.draft import Notes

    return Notes(Loaded(Config(models=[Model(name="model", model="model")]), Path(), {}))


def show_option(value: object) -> str:
    """A value as it would be typed."""
    import yaml

    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=float("inf"))
    return text.strip().removesuffix("...").strip()


def _sentence(message: str, fix: str) -> str:
    return f"{message}: {fix}" if fix else message


def _edit(
    asker: Asker,
    title: str,
    before: Mapping[str, Any],
    parse: Parse,
    example: str,
    shown: Callable[[Any], str],
    words: Sequence[str],
) -> dict[str, Any]:
    values = dict(before)
    while True:
        choices: list[Choice[object] | Heading] = [
            Choice(name, f"{name}={shown(value)}", "change, or take out") for name, value in values.items()
        ]
        choices += [Choice(_ADD, "Add one", f"such as {example}"), Choice(_DONE, "Done", "keep these")]
        chosen: object = None
        try:
            chosen = asker.choose(title, choices, default=_DONE)
            if chosen is not _DONE:
                values = _changed(asker, values, None if chosen is _ADD else str(chosen), parse, shown, words)
        except (Back, KeyboardInterrupt) as end:
            one_step = isinstance(end, Back) and chosen is not None
            if not one_step and (values == before or throws_away(asker)):
                raise
        if chosen is _DONE:
            return values


def _changed(
    asker: Asker,
    values: Mapping[str, Any],
    name: str | None,
    parse: Parse,
    shown: Callable[[Any], str],
    words: Sequence[str],
) -> dict[str, Any]:
    """With another value of that one, or a new one where it is None. Raises Back."""
    text = "" if name is None else f"{name}={shown(values[name])}"
    question = "Name and value" if name is None else "Name and value; nothing takes it out"
    answer = asker.text(question, default=text, check=lambda typed: refuse(typed, parse), words=words)
    left = {key: value for key, value in values.items() if key != name}
    if answer:
        key, value = parse(answer)
        left[key] = value
    return left
