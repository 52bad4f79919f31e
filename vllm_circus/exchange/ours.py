"""Our own files read back: models files, profiles, shortcuts, and exports of several of them.

Rule: they are checked as they are when they are used, and every fault has its line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from vllm_circus.config.load import parse_section
from vllm_circus.config.models import Name, Profile, Section
from vllm_circus.exchange.found import Imported
from vllm_circus.exchange.names import usable_name
from vllm_circus.stores.reading import check_models_file
from vllm_circus.stores.schema import Shortcut

#: What an exported configuration begins with: a comment, so that the file can be started as it is.
HEADER = "# vllm-circus configuration: "

_HEADER = re.compile(rf"{HEADER}([a-z0-9][a-z0-9_-]{{0,63}})[ \r]*(\n|\Z)")


class Bundle(Section):
    """An export of profiles and shortcuts."""

    vllm_circus_export: Literal[1]
    """What the file is, and the version of its form."""
    profiles: dict[Name, Profile] = Field(default_factory=dict)
    """Profiles by name."""
    shortcuts: dict[Name, Shortcut] = Field(default_factory=dict)
    """Shortcuts by name."""


MARK = "vllm_circus_export"


def read(data: Mapping[str, Any], text: str, name: str, source: str) -> Imported | None:
    """What one of our files holds; None where it is none of ours. Raises ConfigError with every fault."""
    if MARK in data:
        parse_section(text.encode(), Path(source), Bundle)
        return Imported(profiles=data.get("profiles", {}), shortcuts=data.get("shortcuts", {}))
    if _is_models_file(data):
        return _configuration(data, text, name, source)
    if data.keys() <= Profile.model_fields.keys() and data.keys() & {"args", "env"}:
        parse_section(text.encode(), Path(source), Profile)
        return Imported(profiles={name: dict(data)})
    if isinstance(data.get("model"), str) and data.keys() <= Shortcut.model_fields.keys():
        parse_section(text.encode(), Path(source), Shortcut)
        return Imported(shortcuts={name: dict(data)})
    return None


#: Keys that vllm-cli's proxy has and ours has not.
_FOREIGN = frozenset({"enable_cors", "enable_metrics", "log_requests"})


def _is_models_file(data: Mapping[str, Any]) -> bool:
    """vllm-cli's files have a list of models, too: its models have a `model_path`, its proxy other keys."""
    models, proxy = data.get("models"), data.get("proxy")
    if not isinstance(models, list) or any(isinstance(model, dict) and "model_path" in model for model in models):
        return False
    ours = any(isinstance(model, dict) and "model" in model for model in models)
    return ours or not (isinstance(proxy, dict) and proxy.keys() & _FOREIGN)


def _configuration(data: Mapping[str, Any], text: str, name: str, source: str) -> Imported:
    check_models_file(text.encode(), Path(source))
    named = _HEADER.match(text)
    name = named[1] if named else usable_name(name)
    return Imported(configurations={name: dict(data)}, texts={name: text})
