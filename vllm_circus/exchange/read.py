"""What a file is, and reading it: other programs' files, our own and commands, told apart by what is in them.

Rules: the file's name decides nothing but what an unnamed thing in it is called; what nobody can tell is refused, with
what could be read instead.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import PurePath
from typing import Any

from vllm_circus.errors import ConfigError
from vllm_circus.exchange import ours, vllmcli
from vllm_circus.exchange.command import read_command_line, starts_vllm
from vllm_circus.exchange.found import Account, Imported, refuse
from vllm_circus.exchange.names import usable_name
from vllm_circus.exchange.text import decode_text, parse_text
from vllm_circus.exchange.vllmcli_settings import is_settings, read_settings

#: As many as a models file may have.
_MOST = 1000
_KNOWN = (
    "a models file, a profile, a shortcut or an export of this program, a `vllm serve` command, or vllm-cli's: a "
    "configuration of its proxy, user_profiles.json, shortcuts.json or config.yaml"
)
#: What only a models file has; a command in it is somebody's note.
_OWN_PART = re.compile(r"^[{\s]*[\"']?(?:models|proxy|defaults|profiles)[\"']?\s*:", re.MULTILINE)


def read_foreign(data: bytes, source: str) -> Imported:
    """What the bytes of a file hold; `source` is the file's name, for messages and for what has no name of its own.

    Raises:
        ConfigError: it is none of the files that are known, or cannot be read as one; names the file and every fault.
    """
    text = decode_text(data, source)
    may_start = starts_vllm(text) and not _OWN_PART.search(text)
    try:
        document = parse_text(text, source)
    except ConfigError:
        if not may_start:
            raise
        document = None
    if may_start and _is_command(document):
        return read_command_line(text, source)
    if not isinstance(document, dict):
        raise refuse(source, "this is no mapping", f"it should be {_KNOWN}")
    name = usable_name(PurePath(source).stem, fallback="imported")
    own = ours.read(document, text, name, source)
    return own if own is not None else _read_vllm_cli(document, name, source)


def _is_command(document: object) -> bool:
    """Whether what YAML makes of a text that starts vLLM is no file: words, or a mapping where a word holds a colon."""
    return not isinstance(document, dict) or starts_vllm(str(next(iter(document), "")))


def _read_vllm_cli(document: Mapping[str, Any], name: str, source: str) -> Imported:
    account = Account()
    kind, content = _kind(document, name)
    if len(content.get("models", ()) if kind == "configuration" else content) > _MOST:
        raise refuse(source, f"more than {_MOST:,} entries", "take some of them out")
    if kind == "configuration":
        imported = Imported(configurations={name: vllmcli.read_configuration(content, source, account)})
    elif kind == "profiles":
        imported = Imported(profiles=vllmcli.read_profiles(content, account))
    elif kind == "shortcuts":
        imported = Imported(shortcuts=vllmcli.read_shortcuts(content, account))
    elif is_settings(document):
        imported = read_settings(document, account)
    else:
        raise refuse(source, "nobody can tell what this file is", f"it should be {_KNOWN}")
    return replace(
        imported,
        losses=tuple(account.losses),
        notes=tuple(account.notes),
        profiles_elsewhere=tuple(account.profiles),
    )


def _kind(document: Mapping[str, Any], name: str) -> tuple[str, Mapping[str, Any]]:
    """What a file of vllm-cli is, and the part of it that counts; a single profile or shortcut is one of several."""
    for kind in ("profile", "shortcut"):
        one, several = document.get(kind), document.get(f"{kind}s")
        if isinstance(several, dict):
            return f"{kind}s", several
        if isinstance(one, dict):
            return f"{kind}s", {_name(one, name): one}
    if isinstance(document.get("models"), list):
        return "configuration", document
    return _bare_kind(document, name)


def _bare_kind(document: Mapping[str, Any], name: str) -> tuple[str, Mapping[str, Any]]:
    """The same where nothing around it says what it is."""
    entries = list(document.values())
    for kind, is_one in (("profiles", _is_profile), ("shortcuts", _is_shortcut)):
        if is_one(document):
            return kind, {_name(document, name): document}
        if entries and all(map(is_one, entries)):
            return kind, document
    return "", {}


def _name(entry: Mapping[str, Any], name: str) -> str:
    own = entry.get("name")
    return own if isinstance(own, str) and own else name


def _is_profile(value: Any) -> bool:
    return isinstance(value, dict) and any(isinstance(value.get(key), dict) for key in ("config", "environment"))


def _is_shortcut(value: Any) -> bool:
    return isinstance(value, dict) and "model" in value and "profile" in value
