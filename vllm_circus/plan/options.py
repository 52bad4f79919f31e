"""Options of the engine's command line: layered, checked, and spelled as words.

Rules: later layers win over earlier ones, null takes an option away; `max_model_len` and `max-model-len` are one
option; what this program sets itself (address, names, keys) cannot be set here, however it is abbreviated. What vLLM
would not take as a value is told here (`optionvalues`), before an engine is started to find it out.
"""

from __future__ import annotations

import json
from typing import Any

from vllm_circus.config.models import option_flag
from vllm_circus.config.places import Place
from vllm_circus.plan.draft import Layer, Notes
from vllm_circus.plan.optionvalues import doubt, object_to

#: A merged option's value and where it was written.
Merged = dict[str, tuple[Any, Place]]

_LOOPBACK = "engines listen on loopback only; clients reach them through the proxy"
_OWNED = {
    "host": _LOOPBACK,
    "port": "write the model's `port`",
    "uds": _LOOPBACK,
    "grpc": _LOOPBACK,
    "grpc-port": _LOOPBACK,
    "root-path": _LOOPBACK,
    "ssl-keyfile": _LOOPBACK,
    "ssl-certfile": _LOOPBACK,
    "ssl-ca-certs": _LOOPBACK,
    "ssl-cert-reqs": _LOOPBACK,
    "ssl-ciphers": _LOOPBACK,
    "enable-ssl-refresh": _LOOPBACK,
    "headless": "every model here serves HTTP",
    "model": "write the model's `model`",
    "served-model-name": "write `name` and `aliases`",
    "lora-modules": "write `lora: [{name: …, path: …}]`",
    "api-key": "each engine gets a random key of its own; keys for clients go into `proxy.keys`",
    "hf-token": "put HF_TOKEN=… into a file and name it in `env_file`",
    "config": "write the options here",
    "help": "run `vllm serve --help=all` in a shell",
    "version": "run `vllm --version` in a shell",
}
#: Flags of `vllm serve` that know no `--no-` form: false is their absence.
_WITHOUT_NEGATION = frozenset({"aggregate-engine-logging", "disable-log-stats"})


def check_layer(layer: Layer, notes: Notes) -> None:
    """Note options of one layer that this program sets itself, or that stand twice, or whose values are wrong."""
    seen: dict[str, str] = {}
    for name, value in layer.values.items():
        flag, place = option_flag(name), (*layer.place, name)
        if flag in seen:
            notes.fault(place, f"the same option as {seen[flag]!r}", "keep one of the two")
        seen.setdefault(flag, name)
        if owned := owned_option(flag):
            short = "" if flag.partition(".")[0] == owned else f"short for {owned!r}: "
            notes.fault(place, f"{short}the program sets this itself", _OWNED[owned])
        elif flag.startswith("no-"):
            notes.fault(place, "options are turned off by false", f"write `{flag.removeprefix('no-')}: false`")
        else:
            _check_value(flag, value, place, notes)


def owned_option(flag: str) -> str | None:
    """The option of ours that `flag` names or abbreviates: vLLM takes any beginning that only one option has."""
    stem = flag.partition(".")[0]
    return next((owned for owned in _OWNED if owned.startswith(stem)), None)


def _check_value(flag: str, value: Any, place: Place, notes: Notes) -> None:
    if objection := object_to(flag, value):
        notes.fault(place, *objection)
    elif isinstance(value, list):
        _check_list(value, place, notes)
    if words := doubt(flag, value):
        notes.warn(place, words)


def _check_list(value: list[Any], place: Place, notes: Notes) -> None:
    if not value:
        notes.fault(place, "an empty list", "write at least one item, or null to take the option away")
    for position, item in enumerate(value):
        if _text(item).startswith("-"):
            notes.fault((*place, position), "would be read as another option", "items cannot begin with '-'")


def merge(layers: tuple[Layer, ...]) -> Merged:
    """The options that hold, by canonical name, in the order in which they first occur; nulls are gone."""
    merged: Merged = {}
    for layer in layers:
        for name, value in layer.values.items():
            merged[option_flag(name)] = (value, (*layer.place, name))
    return {flag: entry for flag, entry in merged.items() if entry[0] is not None}


def words(flag: str, value: Any) -> list[str]:
    """One option as it stands in an argument vector."""
    match value:
        case None:
            return []
        case True:
            return [f"--{flag}"]
        case False:
            return [] if flag in _WITHOUT_NEGATION else [f"--no-{flag}"]
        case list():
            return [f"--{flag}", *map(_text, value)]
        case _:
            text = _text(value)
            return [f"--{flag}={text}"] if text.startswith("-") else [f"--{flag}", text]


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return json.dumps(value)
    return str(value)
