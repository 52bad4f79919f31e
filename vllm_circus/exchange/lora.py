"""LoRA adapters as other programs and vLLM's `--lora-modules` name them, as our `lora`.

vLLM takes `name=path` and JSON objects; vllm-cli writes one text with several of the former, or a list of mappings.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from vllm_circus.config.places import show_value
from vllm_circus.exchange.found import Account
from vllm_circus.exchange.names import is_alias
from vllm_circus.exchange.values import is_line, is_number


def read_modules(value: Any, place: str, account: Account) -> list[dict[str, str]]:
    """The adapters that can be served here, each name once."""
    found: dict[str, dict[str, str]] = {}
    for entry in _entries(value):
        name, path = _name_and_path(entry)
        if not is_line(path):
            account.lose(place, f"{show_value(entry)} names no adapter with a path")
        elif not is_alias(name):
            account.lose(
                place, f"the adapter {show_value(name)} has a name that clients cannot use: {show_value(path)}"
            )
        elif name in found:
            account.lose(place, f"the adapter {show_value(name)} stands twice; the first one is taken")
        else:
            found[name] = {"name": name, "path": path}
            _tell_extras(entry, name, place, account)
    return list(found.values())


def highest_rank(value: Any) -> int | None:
    """The highest rank that entries tell of their adapters; None where none does."""
    ranks = [entry.get("rank") for entry in _entries(value) if isinstance(entry, dict)]
    return max(filter(is_number, ranks), default=None)


def _entries(value: Any) -> Iterator[Any]:
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, str):
            parsed = _parsed(item)
            yield from [parsed] if isinstance(parsed, dict) else parsed if parsed is not None else item.split()
        else:
            yield item


def _parsed(text: str) -> Any:
    """An adapter, or a list of some, that stands there as JSON; None where it is no JSON."""
    if not text.lstrip().startswith(("{", "[")):
        return None
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, dict | list) else None


def _name_and_path(entry: Any) -> tuple[str, str]:
    if isinstance(entry, str):
        name, _, path = entry.partition("=")
        return name, path
    if isinstance(entry, dict):
        path = entry.get("path") or entry.get("local_path") or ""
        return str(entry.get("name") or entry.get("lora_name") or ""), path if isinstance(path, str) else ""
    return "", ""


def _tell_extras(entry: Any, name: str, place: str, account: Account) -> None:
    if isinstance(entry, dict) and entry.get("base_model_name"):
        account.lose(place, f"the adapter {show_value(name)}: its `base_model_name`, which vLLM only shows in a list")
