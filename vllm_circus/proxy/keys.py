"""Who may use the proxy: API keys from a file or a variable.

Rules: keys are read at the start and with each new plan, and live here as digests; a file that others can read is
refused, as is a source that holds no key at all, since the operator asked for a lock. Comparison takes the same time
whatever is presented. No key is ever logged.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from vllm_circus.clientkeys import keys_in_file, keys_in_variable
from vllm_circus.proxy.errors import Refused

_BEARER: Final = re.compile(rb"(?i)bearer[ \t]+([!-~]+)")


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
        presented = presented_key(read)
        if presented is None:
            raise _refused("missing_api_key", "An API key is needed: send it as `Authorization: Bearer KEY`.")
        digest = hashlib.sha256(presented).digest()
        right = 0
        for known in self._digests:
            right |= hmac.compare_digest(known, digest)
        if not right:
            raise _refused("invalid_api_key", "The API key is not valid here.")


def presented_key(read: Mapping[bytes, bytes]) -> bytes | None:
    """The key that these header fields show, whether it opens anything or not; None where they show none."""
    presented = read.get(b"x-api-key")
    if presented is not None:
        return presented
    match = _BEARER.fullmatch(read.get(b"authorization", b""))
    return match[1] if match else None


def load_keys(file: str | None, variable: str | None, environ: Mapping[str, str]) -> Keys:
    """Every key of the file and of the variable. Raises CircusError, and names no key."""
    of_file = keys_in_file(Path(file)) if file is not None else ()
    of_variable = keys_in_variable(variable, environ) if variable is not None else ()
    return Keys((*of_file, *of_variable))


def _refused(code: str, message: str) -> Refused:
    return Refused(401, code, message, headers=(b"www-authenticate: Bearer",))
