"""CORS: which web pages may call the proxy from a browser. Pure.

Rules: with every origin allowed the answer is `*`, and never with credentials; with a list, the origin is named back
only if it is in the list, and caches are told. The same fields stand on preflights, answers and errors, so a page can
read why it failed. Source: the Fetch standard, "HTTP-redirect and CORS protocol".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

_EXPOSED: Final = (
    b"access-control-expose-headers: x-request-id, retry-after, x-vllm-circus-error, x-vllm-circus-fallback\r\n"
)
_ASKED_HEADERS: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z, \t-]{1,1024}")
_MAX_AGE: Final = 600


class Cors:
    """The allowed origins."""

    __slots__ = ("_any", "_origins")

    def __init__(self, origins: tuple[str, ...]) -> None:
        self._any = "*" in origins
        self._origins = frozenset(origin.encode() for origin in origins)

    def allows(self, origin: bytes) -> bool:
        """Whether pages of that origin may call."""
        return self._any or origin in self._origins

    def lines(self, origin: bytes | None) -> bytes:
        """Header lines of an answer to a request of that origin, each with its line end; empty without CORS."""
        if origin is None or not self._origins:
            return b""
        if self._any:
            return b"access-control-allow-origin: *\r\n" + _EXPOSED
        if origin in self._origins:
            return b"access-control-allow-origin: %b\r\nvary: Origin\r\n%b" % (origin, _EXPOSED)
        return b"vary: Origin\r\n"

    def preflight(self, read: Mapping[bytes, bytes], methods: bytes) -> bytes:
        """Header lines of the answer to OPTIONS; `methods` are those of the path."""
        lines = b"allow: %b, OPTIONS\r\n" % methods
        origin = read.get(b"origin")
        if origin is None or b"access-control-request-method" not in read or not self.allows(origin):
            return lines + self.lines(origin)
        asked = read.get(b"access-control-request-headers", b"")
        lines += self.lines(origin) + b"access-control-allow-methods: %b\r\n" % methods
        if _ASKED_HEADERS.fullmatch(asked):
            lines += b"access-control-allow-headers: %b\r\n" % asked
        return lines + b"access-control-max-age: %d\r\n" % _MAX_AGE
