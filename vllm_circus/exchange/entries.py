"""What the options of one engine come to as an entry of ours: a model's, or a shortcut's."""

from __future__ import annotations

from typing import Any

from vllm_circus.exchange.found import Account
from vllm_circus.exchange.options import Taken

_LONGEST = 4096


def model_fields(taken: Taken, where: str, account: Account) -> dict[str, Any]:
    """A model or a shortcut of ours, less its names: what was said and nothing else."""
    if taken.host:
        account.note(where, "engines listen on loopback only here; `proxy.host` is where clients connect")
    if taken.certificate or taken.key:
        account.lose(where, "HTTPS of one engine: the proxy speaks it for all, write `proxy.tls: {certificate, key}`")
    found = {
        "model": taken.model,
        "gpus": taken.gpus,
        "port": taken.port,
        "args": taken.args,
        "env": taken.env,
        "lora": taken.lora,
        "threads": taken.threads,
        "sleep": taken.sleep,
    }
    return {key: value for key, value in found.items() if value or (key == "gpus" and value == [])}


_ORDER = ("name", "model", "aliases", "profile", "gpus", "gpu_memory", "port", "lora", "args", "env", "threads")


def ordered(model: dict[str, Any]) -> dict[str, Any]:
    """The keys as people write them, empty ones left out."""
    keys = [*(key for key in _ORDER if key in model), *(key for key in model if key not in _ORDER)]
    return {key: model[key] for key in keys if model[key] or model[key] == 0 or key in {"gpus", "enabled"}}


def one_line(text: Any) -> str:
    """Text as a line of a list; empty for what is no text."""
    if not isinstance(text, str):
        return ""
    return "".join(character if character.isprintable() else " " for character in text[:_LONGEST]).strip()
