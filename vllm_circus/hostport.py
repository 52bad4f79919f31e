"""How a host and its port are written together."""

from __future__ import annotations


def join_host_port(host: str, port: int) -> str:
    """As URLs have it: an IPv6 address stands in brackets (RFC 3986, section 3.2.2)."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
