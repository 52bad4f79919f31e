"""Who may read the control pages from a browser: nobody from another site. Pure.

Rules: a page of another origin is refused unless CORS allows that origin. A Host that is not ours is refused where no
key guards the pages: a name that an attacker points at this machine would otherwise make his page one of ours (DNS
rebinding). Addresses and this machine's own names are ours; so is everything where a key had to be shown.
"""

from __future__ import annotations

import ipaddress
import socket
from urllib.parse import urlsplit

from vllm_circus.proxy.cors import Cors


def own_names(configured: str) -> frozenset[str]:
    """Names under which this machine may be called."""
    names = {"localhost", configured.lower(), socket.gethostname().lower()}
    return frozenset(names | {name.split(".", 1)[0] for name in names})


def is_foreign(host: str, origin: str | None, *, names: frozenset[str], cors: Cors, keyed: bool) -> bool:
    """Whether a request with this Host and Origin comes from another site, or through a foreign name."""
    if origin is not None and not cors.allows(origin.encode("latin-1", "replace")):
        return urlsplit(origin).netloc.lower() != host.lower()
    return not keyed and not _is_ours(host, names)


def _is_ours(host: str, names: frozenset[str]) -> bool:
    try:
        name = (urlsplit(f"//{host}").hostname or "").lower().rstrip(".")
    except ValueError:
        return False
    if name in names or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name.split(".", 1)[0] in names  # this machine's name with any domain
    return True
