"""The key that an engine asks for: the proxy and the health plugin find it among the variables it was started with."""

from __future__ import annotations

import json
from pathlib import Path

#: vLLM's own variable: it asks every client for this key.
KEY_NAME = "VLLM_API_KEY"


def read_engine_key(variables: Path) -> str | None:
    """The key in a model's file of variables; None where it has none that a header could carry.

    Raises OSError and ValueError where the file cannot be read.
    """
    found = json.loads(variables.read_bytes())
    key = found.get(KEY_NAME) if isinstance(found, dict) else None
    return key if isinstance(key, str) and key and key.isascii() and key.isprintable() else None
