"""The tables of the README that follow from the code: options, profiles, commands, metrics, topics, files.

`python -m tests.docs.reference` writes them anew into README.md, between their markers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from vllm_circus.bus import messages
from vllm_circus.cli.app import ALIASES, COMMANDS, app
from vllm_circus.config.profiles import BUILTIN
from vllm_circus.config.schema import json_schema
from vllm_circus.proxy.control.metrics import METRICS
from vllm_circus.screens.help import MONITOR_KEYS, STARTUP_KEYS
from vllm_circus.stores.schema import Settings

README = Path(__file__).parents[2] / "README.md"
_MARKED = re.compile(r"(<!-- begin (\w+) -->\n).*?(<!-- end \2 -->)", re.DOTALL)

#: Every section of the models file: the path of its options, and its name in the schema (None: the file itself).
SECTIONS: tuple[tuple[str, str | None], ...] = (
    ("", None),
    ("proxy.", "Proxy"),
    ("proxy.tls.", "Tls"),
    ("proxy.limits.", "Limits"),
    ("proxy.keys.", "Keys"),
    ("models[].", "Model"),
    ("models[].lora[].", "Lora"),
    ("models[].queue.", "Queue"),
    ("models[].affinity.", "HeaderAffinity"),
    ("models[].ejection.", "Ejection"),
    ("models[].request.", "RequestRules"),
    ("models[].idle.", "Idle"),
    ("models[].restart.", "Restart"),
    ("models[].probe.", "Probe"),
    ("models[].engine.", "CommandEngine"),
    ("profiles.NAME.", "Profile"),
)

TOPICS = (
    (messages.TOPIC_MODELS, "health.sock", "health", messages.ModelsMessage),
    (messages.TOPIC_COUNTS, "stats.sock", "stats", messages.CountsMessage),
)


def written(readme: str) -> str:
    """The README with every generated part made anew."""
    parts = {"options": options, "profiles": profiles, "commands": commands, "settings": settings}
    parts |= {"keys": keys, "metrics": metrics, "topics": topics}
    return _MARKED.sub(lambda found: f"{found[1]}{chr(10).join(parts[found[2]]())}\n{found[3]}", readme)


def options() -> Iterator[str]:
    """Every option of the models file."""
    schema = json_schema()
    yield from _head("option", "type and range", "default", "meaning")
    for prefix, name in SECTIONS:
        section = schema["$defs"][name] if name else schema
        required = section.get("required", [])
        for key, value in sorted(section["properties"].items(), key=lambda item: item[0] not in required):
            default = "**required**" if key in required else _default(value, schema)
            # pydantic leaves out a description that is the section's own
            meaning = value.get("description") or _resolved(value, schema)["description"]
            yield _row(f"`{prefix}{key}`", _type(value, schema), default, meaning)


def profiles() -> Iterator[str]:
    """Every built-in profile."""
    yield from _head("profile", "for", "options")
    for name, profile in BUILTIN.items():
        listed = ", ".join(f"`{option}: {_plain(value)}`" for option, value in profile.args.items())
        yield _row(f"`{name}`", profile.description, listed or "none")


def commands() -> Iterator[str]:
    """Every command with its options."""
    yield from _head("command", "does")
    for entry in COMMANDS:
        command = app.get_command(click.Context(app), entry.name)
        assert command is not None
        others = [alias for alias, name in ALIASES.items() if name == entry.name]
        also = f" (also `{'`, `'.join(others)}`)" if others else ""
        yield _row(f"**`{_usage(entry.name, command)}`**{also}", entry.summary)
        yield from _flags(command)
        for name, sub in getattr(command, "commands", {}).items():
            yield _row(f"**`{_usage(f'{entry.name} {name}', sub)}`**", sub.get_short_help_str(200))
            yield from _flags(sub)


def settings() -> Iterator[str]:
    """Every setting; those of the proxy are the options of the models file."""
    schema = Settings.model_json_schema()
    yield from _head("setting", "type", "default", "meaning")
    for key, value in schema["properties"].items():
        name, default = (f"{key}.…", "as in a models file") if key == "proxy" else (key, _default(value, schema))
        yield _row(f"`{name}`", _type(value, schema), default, value["description"])


def keys() -> Iterator[str]:
    """Every key of the live screens."""
    yield from _head("screen", "key", "does")
    for screen, table in (("`top`", MONITOR_KEYS), ("a start", STARTUP_KEYS)):
        for row in table:
            yield _row(screen, ", ".join(f"`{key}`" for key in row.keys.split(", ")), row.does)


def metrics() -> Iterator[str]:
    """Every metric."""
    yield from _head("metric", "kind", "labels", "meaning")
    for told in METRICS:
        yield _row(f"`{told.name}`", told.kind, ", ".join(told.labels) or "none", told.help)


def topics() -> Iterator[str]:
    """Every topic of the bus."""
    yield from _head("topic", "socket", "by", "message", "fields")
    for topic, socket, plugin, kind in TOPICS:
        fields = ", ".join(f"`{name}`" for name in kind.__dataclass_fields__)
        yield _row(f"`{topic.decode()}`", f"`{socket}`", plugin, f"`{kind.__name__}`", fields)


def _usage(name: str, command: click.Command) -> str:
    arguments = [p.make_metavar(click.Context(command)) for p in command.params if isinstance(p, click.Argument)]
    return " ".join([name, *arguments])


def _flags(command: click.Command) -> Iterator[str]:
    for option in command.params:
        if isinstance(option, click.Option) and not option.hidden and option.name not in {"instance", "help"}:
            value = "" if option.is_flag else f" {option.make_metavar(click.Context(command))}"
            yield _row(f"&emsp;`{', '.join(option.opts)}{value}`", option.help or "")


def _resolved(value: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in value:
        return value
    return {**schema["$defs"][value["$ref"].rpartition("/")[2]], "$ref": value["$ref"]}


def _type(value: dict[str, Any], schema: dict[str, Any]) -> str:
    value = _resolved(value, schema)
    if "anyOf" in value:
        return " or ".join(dict.fromkeys(_type(each, schema) for each in value["anyOf"]))
    if "enum" in value or "const" in value:
        return " or ".join(f"`{_plain(each)}`" for each in value.get("enum", [value.get("const")]))
    kind = {
        "string": "text",
        "boolean": "true or false",
        "integer": "whole number",
        "number": "number",
        "object": "section" if "$ref" in value else "mapping",
        "null": "null",
    }.get(value.get("type", ""), "any")
    if value.get("type") == "array":
        kind = f"list of {_type(value['items'], schema)}"
    return kind + _range(value)


def _range(value: dict[str, Any]) -> str:
    low, above, high = (value.get(key) for key in ("minimum", "exclusiveMinimum", "maximum"))
    if low is not None and high is not None:
        return f", {low:,} to {high:,}"
    return f", above {above:,} to {high:,}" if above is not None and high is not None else ""


def _default(value: dict[str, Any], schema: dict[str, Any]) -> str:
    if _type(value, schema) == "section" or isinstance(value.get("default"), dict):
        return "see below" if value.get("default") else "empty"
    return f"`{_plain(value.get('default'))}`" if value.get("default") not in ([], "") else "empty"


def _plain(value: object) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:g}" if isinstance(value, float) and value < 1e6 else str(value)


def _head(*titles: str) -> Iterator[str]:
    yield _row(*titles)
    yield _row(*["---"] * len(titles))


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


if __name__ == "__main__":
    README.write_text(written(README.read_text()))
