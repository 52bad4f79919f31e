"""What the public port lets through: a closed list of paths. Pure.

Rules: a path is compared byte by byte with the list, and what goes to an engine is that same path. So there is
nothing to normalise and nothing to trick: `//`, `%2e`, another case, `;`, a trailing slash are all just paths that
are not in the list, and the engine never sees them. Engine routes that change it or show its inside (sleep, wake_up,
pause, collective_rpc, load_lora_adapter, reset_*, server_info, scale_*, its own /metrics) are not in the list.
Source for the engine's routes: vLLM's OpenAI-compatible server.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final


class Where(Enum):
    """How the backend of a request is found."""

    JSON = "the member `model` of the JSON body"
    FORM = "the field `model` of the multipart form"
    QUERY = "`model` in the query"
    STORED = "the model that made the response of that id, or `model` in the query"
    TUNNEL = "`model` in the query; the connection becomes a tunnel"
    CONTROL = "the proxy itself"


#: Compiled code finds these at once; a member of an enumeration it has to look up.
CONTROL: Final = Where.CONTROL
STORED: Final = Where.STORED
_JSON: Final = Where.JSON
_FORM: Final = Where.FORM


@dataclass(frozen=True)
class Page:
    """One public path: its methods, how it finds its backend, and who may come without a key."""

    methods: frozenset[bytes]
    where: Where
    anthropic: bool = False
    open: bool = False

    @property
    def in_body(self) -> bool:
        """Whether the body names the model."""
        return self.where is _JSON or self.where is _FORM


_POST: Final = frozenset({b"POST"})
_GET: Final = frozenset({b"GET"})
_READ: Final = frozenset({b"GET", b"HEAD"})

_JSON_PATHS: Final = (
    b"/v1/chat/completions /v1/chat/completions/batch /v1/completions /v1/responses /tokenize /detokenize"
    b" /invocations /generative_scoring /pooling /v1/embeddings /v2/embed /score /v1/score /rerank /v1/rerank"
    b" /v2/rerank /classify"
).split()
_PAGES: Final = (
    {path: Page(_POST, Where.JSON) for path in _JSON_PATHS}
    | {path: Page(_POST, Where.JSON, anthropic=True) for path in (b"/v1/messages", b"/v1/messages/count_tokens")}
    | {path: Page(_POST, Where.FORM) for path in (b"/v1/audio/transcriptions", b"/v1/audio/translations")}
    | {path: Page(_GET, Where.QUERY) for path in (b"/version", b"/load")}
    | {path: Page(_READ, Where.CONTROL) for path in (b"/v1/models", b"/metrics", b"/proxy/status", b"/proxy/registry")}
    | {path: Page(_READ, Where.CONTROL, open=True) for path in (b"/health", b"/ping")}
    | {b"/v1/realtime": Page(_GET, Where.TUNNEL)}
)
_PATTERNS: Final = (
    (re.compile(rb"/v1/responses/([A-Za-z0-9_-]{1,128})"), Page(_GET | {b"DELETE"}, Where.STORED)),
    (re.compile(rb"/v1/responses/([A-Za-z0-9_-]{1,128})/cancel"), Page(_POST, Where.STORED)),
    (re.compile(rb"/v1/models/((?:[A-Za-z0-9._:/@+-]|%[0-9A-Fa-f]{2}){1,128})"), Page(_READ, Where.CONTROL)),
)


def find_page(path: bytes) -> Page | None:
    """The page of a path, or None where the path is not public."""
    page = _PAGES.get(path)
    if page is not None:
        return page
    return next((page for pattern, page in _PATTERNS if pattern.fullmatch(path)), None)


def stored_id(path: bytes) -> str | None:
    """The id in `/v1/responses/{id}` and what is below it."""
    match = _PATTERNS[0][0].match(path)
    return match[1].decode() if match else None
