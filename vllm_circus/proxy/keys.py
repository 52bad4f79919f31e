"""Who may use the proxy: API keys from a file or a variable.

Rules: keys are read once, at the start, and live here as digests; a file that others can read is refused, as is a
source that holds no key at all, since the operator asked for a lock. Comparison takes the same time whatever is
presented. No key is ever logged.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

from vllm_circus.errors import CircusError
from vllm_circus.proxy.errors import Refused

_BEARER = re.compile(rb"(?i)bearer[ \t]+([!-~]+)")


class Keys:
    """The keys that open the proxy; without any, everybody may come."""

    __slots__ = ("_digests",)

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._digests = tuple(hashlib.sha256(key.encode()).digest() for key in keys)

    def __len__(self) -> int:
        return len(self._digests)

    def check(self, read: Mapping[bytes, bytes]) -> None:
        """Raises Refused (401) unless the header fields hold a key of ours."""
        if not self._digests:
            return
        presented = read.get(b"x-api-key")
        if presented is None:
            match = _BEARER.fullmatch(read.get(b"authorization", b""))
            presented = match[1] if match else None
        if presented is None:
            raise _refused("An API key is needed: send it as `Authorization: Bearer KEY`.", "missing_api_key")
        digest = hashlib.sha256(presented).digest()
        right = 0
        for known in self._digests:
            right |= hmac.compare_digest(known, digest)
        if not right:
            raise _refused("The API key is not valid here.", "invalid_api_key")


def load_keys(file: str | None, variable: str | None, environ: Mapping[str, str]) -> Keys:
    """Every key of the file and of the variable. Raises CircusError, and names no key."""
    keys: list[str] = []
    if file is not None:
        keys += _from_file(Path(file))
    if variable is not None:
        found = [key.strip() for key in environ.get(variable, "").split(",") if key.strip()]
        if not found:
            raise CircusError(
                f"the variable {variable} holds no API key",
                hint=f"set {variable} in the environment of vllm-circus, or take `keys.env` out of the models file",
            )
        keys += found
    return Keys(keys)


def _from_file(path: Path) -> list[str]:
    try:
        mode = path.stat().st_mode
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CircusError(f"the API keys cannot be read: {path}: {_why(error)}") from None
    if stat.S_IMODE(mode) & 0o077:
        raise CircusError(
            f"the file of API keys {path} can be read by others (mode {stat.S_IMODE(mode):04o})",
            hint=f"chmod 600 {path}",
        )
    keys = [line.split("#", 1)[0].strip() for line in lines]
    keys = [key for key in keys if key]
    if not keys:
        raise CircusError(f"the file of API keys {path} holds none", hint="write one key a line")
    return keys


def _why(error: OSError | UnicodeDecodeError) -> str:
    return error.strerror or type(error).__name__ if isinstance(error, OSError) else "it is not UTF-8"


def _refused(message: str, code: str) -> Refused:
    return Refused(401, code, message, headers=(b"www-authenticate: Bearer",))
