"""Names of other programs, made into names that can be used here.

Rules: a name that can be used stays as it is; the same name always becomes the same one, so that what refers to it
from another file still does; two that become the same are told apart by a number.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection

from vllm_circus.config.models import ALIAS_PATTERN, NAME_PATTERN, RESERVED_NAMES

_LONGEST = 64


def usable_name(text: str, *, fallback: str = "model", reserved: Collection[str] = ()) -> str:
    """What `text` is called here: `Qwen/Qwen3-8B` → `qwen3-8b`, `My Model` → `my-model`."""
    if re.fullmatch(NAME_PATTERN, text) and text not in reserved:
        return text
    plain = unicodedata.normalize("NFKD", text[:1000]).encode("ascii", "ignore").decode().lower()
    parts = [part for part in plain.rstrip("/").split("/") if part]
    name = re.sub(r"[^a-z0-9_]+", "-", parts[-1] if parts else "").strip("-_")[:_LONGEST].rstrip("-_")
    return f"{name}-model" if name in reserved else name or fallback


def model_name(text: str) -> str:
    """The same for a model, which may not be called as what commands and logs use."""
    return usable_name(text, reserved=RESERVED_NAMES)


def unique_name(name: str, taken: Collection[str]) -> str:
    """`name`, or with the first number behind it (`-2`, `-3`, …) that nobody has yet."""
    if name not in taken:
        return name
    numbered = (f"{name[: _LONGEST - 1 - len(str(number))]}-{number}" for number in range(2, len(taken) + 3))
    return next(candidate for candidate in numbered if candidate not in taken)


def is_alias(text: str) -> bool:
    """Whether clients may use this name for a model."""
    return re.fullmatch(ALIAS_PATTERN, text) is not None
