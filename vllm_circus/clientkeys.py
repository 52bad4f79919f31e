"""Where clients' API keys are written: a file with one key a line, a variable with keys between commas.

Rules: whoever checks a models file, starts a set or serves it reads keys here, so that all of them agree on what a key
is; no message names one.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from vllm_circus.errors import CircusError


class NoKeys(CircusError):
    """A place that is to hold keys holds none, or nobody can tell."""

    exit_code = 2


def keys_in_text(text: str) -> tuple[str, ...]:
    """The keys of a file: one a line, `#` begins a comment."""
    keys = (line.split("#", 1)[0].strip() for line in text.splitlines())
    return tuple(key for key in keys if key)


def keys_in_file(path: Path) -> tuple[str, ...]:
    """At least one key. Raises NoKeys, also where others may read the file."""
    try:
        mode = path.stat().st_mode & 0o777
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = (error.strerror or type(error).__name__) if isinstance(error, OSError) else "it is not UTF-8"
        raise NoKeys(f"the API keys cannot be read: {path}: {why}") from None
    if mode & 0o077:
        raise NoKeys(f"the file of API keys {path} can be read by others (mode {mode:04o})", hint=f"chmod 600 {path}")
    keys = keys_in_text(text)
    if not keys:
        raise NoKeys(f"the file of API keys {path} holds none", hint="write one key a line")
    return keys


def keys_in_variable(name: str, environ: Mapping[str, str]) -> tuple[str, ...]:
    """At least one key, several are separated by commas. Raises NoKeys."""
    keys = tuple(key.strip() for key in environ.get(name, "").split(",") if key.strip())
    if not keys:
        raise NoKeys(
            f"the variable {name}, which `proxy.keys.env` names, holds no API key",
            hint=f"set {name} in the environment of vllm-circus, or take `keys.env` out of the models file",
        )
    return keys
