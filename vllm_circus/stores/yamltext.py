"""Values to YAML text that every reader of YAML 1.1 takes for the same values.

Rules: what was not set is not written; sections are in the order given; text that another program would take for a
number, a date or a truth is quoted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml
from pydantic import BaseModel

_ENDLESS = 1 << 30  # columns: no line is broken


class _Tidy(yaml.SafeDumper):
    """Indents lists below their key, and writes text of several lines in quotes."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002, FBT - PyYAML's
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - PyYAML's signature
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = '"' if not value.isprintable() else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


def _list(dumper: yaml.SafeDumper, value: list[Any]) -> yaml.SequenceNode:
    """Plain values stand in one line; what has parts of its own begins a line."""
    flow = dumper.default_flow_style or not any(isinstance(item, dict | list) for item in value)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=flow)


_Tidy.add_representer(str, _text)
_Tidy.add_representer(list, _list)


def dump_block(value: Mapping[str, Any] | list[Any]) -> str:
    """A mapping or a list, an entry a line; lists of plain values in one line. Ends with a line end."""
    return yaml.dump(value, Dumper=_Tidy, sort_keys=False, allow_unicode=True, width=_ENDLESS)


def dump_flow(value: object) -> str:
    """A value in one line, such that it may stand between brackets."""
    text = yaml.dump(
        [value], Dumper=_Tidy, sort_keys=False, allow_unicode=True, width=_ENDLESS, default_flow_style=True
    )
    return text.strip()[1:-1]


def dump_section(section: BaseModel) -> str:
    """What is set in a section, as the text of a file."""
    return dump_section_values(plain(section))


def dump_section_values(values: Mapping[str, Any]) -> str:
    """The same of plain data."""
    return dump_block(values) if values else "{}\n"


def plain(section: BaseModel) -> dict[str, Any]:
    """What is set in a section, as plain data."""
    return section.model_dump(exclude_unset=True)
