"""Who may read the control pages from a browser: nobody from another site. Pure.

Rules: a page of another origin is refused unless CORS allows that origin. A Host that is not ours is refused where no
key guards the pages: a name that an attacker points at this machine would otherwise make his page one of ours (DNS
rebinding). Addresses and this machine's own names are ours; so is everything where a key had to be shown. A name is
compared whole: anybody can own a domain and call a host in it `localhost` or by this machine's name, so this machine's
name counts only alone, in the domains that its resolver searches, and in those that nobody can register.
"""

from __future__ import annotations

import ipaddress
import socket
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from vllm_circus.proxy.cors import Cors

_RESOLVER = Path("/etc/resolv.conf")
#: Set aside by RFC 6762 (local), RFC 8375 (home.arpa) and ICANN (internal); `lan` is what home routers use.
_PRIVATE_DOMAINS = ("local", "lan", "internal", "home.arpa")


def own_names(configured: str, resolver: Path = _RESOLVER) -> frozenset[str]:
    """Names under which this machine may be called, in lower case. `resolver` is resolv.conf(5)."""
    host = socket.gethostname().lower()
    short = host.split(".", 1)[0]
    domains = (*_PRIVATE_DOMAINS, *_search_domains(resolver))
    return frozenset({"localhost", configured.lower(), host, short} | {f"{short}.{domain}" for domain in domains})


def _search_domains(resolver: Path) -> list[str]:
    with suppress(OSError):
        lines = [line.lower().split() for line in resolver.read_text("utf-8", "replace").splitlines()]
        found = [word.strip(".") for words in lines if words and words[0] in {"search", "domain"} for word in words[1:]]
        return [domain for domain in found if domain]
    return []


def is_foreign(host: str, origin: str | None, *, names: frozenset[str], cors: Cors, keyed: bool) -> bool:
    """Whether a request with this Host and Origin comes from another site, or through a foreign name."""
    if origin is not None and not cors.allows(origin.encode("latin-1", "replace")) and not _is_same(origin, host):
        return True
    return not keyed and not _is_ours(host, names)


def _is_ours(host: str, names: frozenset[str]) -> bool:
    try:
        name = (urlsplit(f"//{host}").hostname or "").lower().rstrip(".")
    except ValueError:
        return False
    if name in names or name.endswith(".localhost"):
        return True
    with suppress(ValueError):
        ipaddress.ip_address(name)
        return True
    return False


def _is_same(origin: str, host: str) -> bool:
    try:
        return urlsplit(origin).netloc.lower() == host.lower()
    except ValueError:
        return False
