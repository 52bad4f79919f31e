"""What the schema found wrong, in sentences for the operator.

pydantic tells one error per branch of a union and speaks of types; here every place gets one sentence that says what
stands there, what should, and what to write.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args, get_origin

import yaml
from pydantic import BaseModel

from vllm_circus.config import models
from vllm_circus.config.document import Document
from vllm_circus.config.places import Place, did_you_mean, quote_it, show_value

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

#: A place, what is wrong there, and what to do.
Finding = tuple[Place, str, str]

#: Keys that other programs use, or that people write in the wrong place, and where their value belongs here.
_ELSEWHERE = {
    "model_path": "write `model`",
    "path": "write `model`",
    "gpu_ids": "write `gpus`",
    "gpu": "write `gpus: [0]`",
    "alias": "write `aliases: [name]`",
    "config_overrides": "write `args`",
    "environment": "write `env`",
    "loading_priority": "write `priority`",
    "enable_cors": "write `cors`",
    "enable_metrics": "write `metrics`",
    "log_requests": "write `request_logging`",
    "lora_modules": "write `lora: [{name: …, path: …}]`",
    **dict.fromkeys(("replica", "instances", "num_replicas", "copies"), "write `replicas`"),
    **dict.fromkeys(("fallback_model", "fallbacks"), "write `fallback`, the name of one other model"),
    **dict.fromkeys(("concurrency", "max_concurrency", "max_concurrent_requests"), "write `max_in_flight`"),
    **dict.fromkeys(("queue_size", "max_queue", "queue_timeout"), "write `queue: {size: …, timeout: …}`"),
    **dict.fromkeys(("sticky", "session_affinity", "session_header"), "write `affinity: {header: …}`"),
    **dict.fromkeys(("max_tokens", "request_limits"), "write `request: {limits: {max_tokens: …}}`"),
    **dict.fromkeys(("temperature", "request_defaults"), "write `request: {defaults: {temperature: …}}`"),
    **dict.fromkeys(
        ("tls_cert", "tls_key", "ssl_certfile", "ssl_keyfile", "certfile", "keyfile", "cert", "certificate"),
        "write `tls: {certificate: …, key: …}`",
    ),
    **dict.fromkeys(("uds", "socket", "unix"), "write `unix_socket`"),
    "api_key": "name a file of keys in `proxy.keys.file`",
    "api_keys": "name a file of keys in `proxy.keys.file`",
}
_MISSING = {
    "models": "add a list `models:` with a `name` and a `model` for each",
    "name": "give it a name of a-z, 0-9, '_' and '-'",
    "model": "name a folder or a Hugging Face id, e.g. Qwen/Qwen3-8B",
    "path": "name the adapter's folder or Hugging Face id",
    "command": "write the argument vector, e.g. [my-server, --port, '{port}']",
    "header": "name the header whose value decides, e.g. X-Session-Id",
    "certificate": "name the PEM file of the certificate",
    "key": "name the PEM file of the private key",
}
_PATTERNS = {
    models.NAME_PATTERN: "use up to 64 of a-z, 0-9, '_' and '-', and begin with a letter or digit",
    models.ALIAS_PATTERN: "use up to 128 of letters, digits and . _ : / @ + -, and begin with a letter or digit",
    models.OPTION_PATTERN: "write an option's name such as max-model-len",
    models.ENV_PATTERN: "use letters, digits and '_', and begin with no digit",
    models.MEMBER_PATTERN: "write a member of the request's JSON, such as max_tokens",
    models.HEADER_PATTERN: "write a header's name of letters, digits and '-', such as X-Session-Id",
}
_BOUNDS = {
    "greater_than_equal": ("must be at least", "ge"),
    "less_than_equal": ("must be at most", "le"),
    "greater_than": ("must be more than", "gt"),
    "less_than": ("must be less than", "lt"),
}
_NEEDED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
}
_EMPTY = "write a value, or remove the key"
_PLAIN_LINE = "use one line of text without control characters"
_OPTION = "true, false, null, a number, text, a list of those, or a mapping"
_OPTION_ITEM = "true, false, a number or text"
_NUMBERS = "a number"
_UNIONS = {
    "affinity": "`prefix` or a mapping with `header`",
    "cors": "true, false or a list of origins such as https://chat.example.org",
    "engine": "`vllm`, `simulator` or a mapping with `command`",
}
#: What to write where none of a text's choices is meant.
_ELSE: dict[str | int, str] = {"affinity": "write `prefix`, or `{header: NAME}` for sessions that a header tells apart"}
_SECTIONS: dict[str, type[BaseModel]] = {
    "`proxy`": models.Proxy,
    "`proxy.limits`": models.Limits,
    "`proxy.keys`": models.Keys,
    "`proxy.tls`": models.Tls,
    "a model's `queue`": models.Queue,
    "a model's `ejection`": models.Ejection,
    "a model's `request`": models.RequestRules,
    "a model's `restart`": models.Restart,
    "a model's `probe`": models.Probe,
    "one of the `models`": models.Model,
}
_NOTHING = object()
#: What pydantic puts into a location for the branch of a union; a document's own keys are looked for first.
_BRANCH = re.compile(r"(bool|int|float|constrained-str|CommandEngine|HeaderAffinity)$|(list|dict|literal)\[")
_MAPPINGS = frozenset({"CommandEngine", "HeaderAffinity"})
#: Durations as other programs take them; here they are seconds. `factor` is the one number that is none.
_SPAN = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?(ms|s|secs?|seconds?|m|min|minutes?|h|hours?)")
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}
_BARE = frozenset({"factor"})
_NUMBER = re.compile(r"[-+]?[0-9]+(\.[0-9]+)?")


def explain(error: ValidationError, document: Document, root: type[BaseModel] = models.Config) -> list[Finding]:
    """What is wrong, one finding per fault, less what stands at places that have a fault of their own already.

    `root` is the schema of the whole document.
    """
    found: list[Finding] = []
    unions: dict[Place, object] = {}  # places of a union none of whose branches is of the value's kind
    for detail in error.errors(include_url=False):
        spot = _locate(document.data, detail["loc"])
        if spot.mismatch:
            unions.setdefault(spot.place, spot.value)
        else:
            found.append(_explain_one(detail, spot, document, root))
    for place, value in sorted(unions.items(), key=lambda union: -len(union[0])):  # the innermost says it best
        if not any(known[: len(place)] == place for known, _, _ in found):
            found.append(_explain_union(place, value))
    return [finding for finding in found if not _is_spoilt(finding[0], document)]


def _is_spoilt(place: Place, document: Document) -> bool:
    return any(place[:end] in document.spoilt for end in range(len(place) + 1))


@dataclass(frozen=True)
class _Spot:
    """pydantic's location taken apart: the place in the document and its value, and what is no place there.

    `rest` is the name of a missing key, or `[key]`; `mismatch` says that the error is one union branch's complaint
    about a value of a kind that this branch is not for.
    """

    place: Place
    value: object
    rest: str = ""
    mismatch: bool = False


def _locate(data: object, loc: Place) -> _Spot:
    place: Place = ()
    for step in loc:
        inside = _step(data, step)
        if inside is not _NOTHING:
            data, place = inside, (*place, step)
        elif not isinstance(step, str) or not _BRANCH.match(step):
            return _Spot(place, data, rest=str(step))
        elif not _is_for(step, data):
            return _Spot(place, data, mismatch=True)
    return _Spot(place, data)


def _step(data: object, step: str | int) -> object:
    if isinstance(data, dict) and isinstance(step, str):
        return data.get(step, _NOTHING)
    if isinstance(data, list) and isinstance(step, int) and step < len(data):
        return data[step]
    return _NOTHING


def _is_for(branch: str, value: object) -> bool:
    """Whether a union's branch, named as pydantic names it, takes values of this kind."""
    if isinstance(value, str):
        return branch == "constrained-str" or branch.startswith("literal[")
    if isinstance(value, list):
        return branch.startswith("list[")
    return isinstance(value, dict) and (branch.startswith("dict[") or branch in _MAPPINGS)


def _explain_one(detail: ErrorDetails, spot: _Spot, document: Document, root: type[BaseModel]) -> Finding:
    kind, place = detail["type"], spot.place
    if kind == "extra_forbidden":
        return place, "unknown key", _unknown_key(place, root)
    if kind in _NEEDED:
        needed = _NEEDED[kind]
        message = f"empty, needs {needed}" if spot.value is None else f"needs {needed}, not {_describe(spot, document)}"
        return place, message, _retype(kind, spot, document)
    return place, *_explain_content(kind, spot, detail.get("ctx", {}), detail["msg"])


def _explain_content(kind: str, spot: _Spot, context: Mapping[str, Any], message: str) -> tuple[str, str]:
    """Message and fix for values of the right kind."""
    value = show_value(spot.value)
    match kind:
        case "missing":
            result = f"`{spot.rest}` is missing", _MISSING.get(spot.rest, f"add `{spot.rest}`")
        case "string_pattern_mismatch":
            shown = show_value(spot.place[-1]) if spot.rest == "[key]" else value
            result = f"{shown} cannot be used here", _PATTERNS.get(context["pattern"], _PLAIN_LINE)
        case "literal_error":
            choices = str(context["expected"])
            near = did_you_mean(str(spot.value), re.findall(r"'([^']+)'", choices))
            result = f"{value} is not {'one of ' * (' or ' in choices)}{choices}", near or _ELSE.get(spot.place[-1], "")
        case "too_short" | "too_long" | "string_too_long":
            result = _explain_length(kind, context)
        case _ if kind in _BOUNDS:
            sentence, bound = _BOUNDS[kind]
            result = f"{sentence} {context[bound]:,}, not {value}", ""
        case _:
            result = message, ""
    return result


def _explain_length(kind: str, context: Mapping[str, Any]) -> tuple[str, str]:
    if kind == "too_short":
        return "an empty list", "write at least one item"
    most = context["max_length"]
    return (f"longer than {most:,} characters", "") if kind == "string_too_long" else (f"more than {most:,} items", "")


def _explain_union(place: Place, value: object) -> Finding:
    last = place[-1]
    needed = _UNIONS.get(last, _OPTION) if isinstance(last, str) else _OPTION_ITEM
    needed = _NUMBERS if place[-3:-1] == ("request", "limits") else needed
    if value is None:
        return place, f"empty, needs {needed}", _EMPTY
    return place, f"needs {needed}, not {_kind(value)}", ""


# -- values ------------------------------------------------------------------------------------------------------------


def _kind(value: object) -> str:
    """What a value is called: `text '8001'`, `the number 3`, `a list`."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return f"the number {show_value(value)}"
        case str():
            return f"text {show_value(value)}"
        case list():
            return "a list"
        case _:
            return "a mapping"


def _describe(spot: _Spot, document: Document) -> str:
    """The value as YAML took it, with what was written where that differs (`no` is false)."""
    value, written = spot.value, document.texts.get(spot.place, "")
    if isinstance(value, bool) and written.lower() not in {"true", "false"}:
        return f"{written} (which is {_kind(value)} in YAML)"
    return _kind(value)


def _retype(kind: str, spot: _Spot, document: Document) -> str:
    """How to write the value so that it has the kind that is needed."""
    value, written = spot.value, document.texts.get(spot.place, "")
    if kind == "string_type" and isinstance(value, bool | int | float):
        return quote_it(written)
    if isinstance(value, str) and (
        (kind == "bool_type" and value.lower() in {"true", "false", "yes", "no", "on", "off"})
        or (kind in {"int_type", "float_type"} and _NUMBER.fullmatch(value))
    ):
        return f"write {value} without quotes"
    if kind == "float_type" and spot.place[-1] not in _BARE and (span := _SPAN.fullmatch(str(value))):
        return f"write {float(span[1]) * _UNITS[span[2][:1] if span[2] != 'ms' else 'ms']:g} (seconds)"
    if kind == "list_type" and isinstance(value, bool | int | float | str):
        return f"write {_as_list(spot.place, str(value), written)}"
    if value is None:
        return _EMPTY
    return ""


def _as_list(place: Place, value: str, written: str) -> str:
    """A value as a list: a command by its words, anything else whole."""
    if place[-1:] != ("command",):
        return f"[{written}]" if len(written) <= 40 else "a list of it"
    try:
        words = shlex.split(value)
    except ValueError:  # a quote is left open
        words = value.split()
    listed = yaml.safe_dump(words, default_flow_style=True, allow_unicode=True, width=1000).strip()
    return listed if len(listed) <= 100 else "a list of its words"


# -- keys --------------------------------------------------------------------------------------------------------------


def _unknown_key(place: Place, root: type[BaseModel]) -> str:
    """Where the value of an unknown key belongs, or what the key may have been meant to be."""
    key = str(place[-1])
    section = _section(place[:-1], root)
    known = tuple(section.model_fields) if section else ()
    elsewhere = _ELSEWHERE.get(key, "")
    if elsewhere and (root is models.Config or any(elsewhere.startswith(f"write `{name}") for name in known)):
        return elsewhere
    if near := did_you_mean(key, known):
        return near
    if root is not models.Config:
        return f"keys here are {', '.join(known)}"
    if owners := [name for name, owner in _SECTIONS.items() if key in owner.model_fields]:
        return f"it belongs under {' or '.join(owners)}"
    if section in {models.Model, models.ModelOptions}:
        return f"options of the engine stand under `args`; keys here are {', '.join(known)}"
    return f"keys here are {', '.join(known)}"


def _section(place: Place, root: type[BaseModel]) -> type[BaseModel] | None:
    """The schema's section that stands at a place."""
    section: type[BaseModel] | None = root
    inside_mapping = False  # the next step is a key of the operator's own, such as a profile's name
    for step in place:
        if isinstance(step, int):
            continue
        if inside_mapping:
            inside_mapping = False
            continue
        entry = section.model_fields.get(step) if section else None
        inside_mapping = entry is not None and get_origin(entry.annotation) is dict
        section = _content(entry.annotation) if entry else None
    return section


def _content(annotation: Any) -> type[BaseModel] | None:
    """The section that a field holds: itself, in a list, as a mapping's values, or as one of several kinds."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((inside for part in get_args(annotation) if (inside := _content(part))), None)
