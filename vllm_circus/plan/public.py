"""The public side: the proxy's plan, and what the operator should know about who can reach it."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path

from vllm_circus.config.places import show_value
from vllm_circus.hostport import join_host_port
from vllm_circus.plan.draft import Draft, Notes
from vllm_circus.plan.listening import socket_path, tls_files
from vllm_circus.plan.sources import Sources
from vllm_circus.plan.types import ProxyPlan

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+)(:[0-9]{1,5})?")
_HOST_NAME = re.compile(
    r"(?=.{1,253}$)[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*"
)


def plan_proxy(drafts: tuple[Draft, ...], sources: Sources, now: float | None, notes: Notes) -> ProxyPlan:
    """The proxy's plan; a host that is none, origins that are none, unusable keys and certificates are noted.

    `now` is in seconds since 1970, where it is known.
    """
    proxy = notes.loaded.config.proxy
    keys = proxy.keys
    if keys is not None and keys.file is None and keys.env is None:
        notes.fault(("proxy", "keys"), "names no keys", "write `file` or `env`, or remove `keys`")
    if keys is None and not _is_loopback(proxy.host):
        notes.warn(
            ("proxy",),
            f"everybody who reaches {join_host_port(proxy.host, proxy.port)} may use the models; "
            "set `keys`, or `host: 127.0.0.1` to serve this machine alone",
        )
    _check_host(proxy.host, notes)
    keys_file = sources.keys_file(keys.file, ("proxy", "keys", "file"), notes) if keys and keys.file else None
    certificate, key = tls_files(proxy.tls, sources, now, notes) if proxy.tls else (None, None)
    return ProxyPlan(
        host=proxy.host,
        port=proxy.port,
        workers=proxy.workers,
        cors=_origins(proxy.cors, notes),
        metrics=proxy.metrics,
        request_logging=proxy.request_logging,
        default_model=proxy.default_model or (drafts[0].group if len(drafts) == 1 else None),
        drain_timeout=proxy.drain_timeout,
        limits=proxy.limits,
        keys_file=keys_file,
        keys_env=keys.env if keys else None,
        tls_certificate=certificate,
        tls_key=key,
        unix_socket=socket_path(proxy.unix_socket, sources, notes) if proxy.unix_socket else None,
        exact_usage=proxy.exact_usage,
        keys_version=sources.disk.version(Path(keys_file)) if keys_file else None,
    )


def is_network_address(host: str) -> bool:
    """Whether the proxy could be told to listen there: an IP address, or what can be a host's name."""
    return _address(host) is not None or bool(_HOST_NAME.fullmatch(host) and not re.fullmatch(r"[0-9.]+", host))


def _check_host(host: str, notes: Notes) -> None:
    if not is_network_address(host):
        fix = "write an address such as 127.0.0.1 or ::1, or a host's name"
        notes.fault(("proxy", "host"), f"{show_value(host)} is no network address", fix)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _is_loopback(host: str) -> bool:
    address = _address(host)
    return address.is_loopback if address else host == "localhost"


def _origins(cors: bool | list[str], notes: Notes) -> tuple[str, ...]:
    if isinstance(cors, bool):
        return ("*",) if cors else ()
    for position, origin in enumerate(cors):
        if origin != "*" and not _ORIGIN.fullmatch(origin):
            fix = "write scheme://host or scheme://host:port without a path, or `cors: true` for every origin"
            notes.fault(("proxy", "cors", position), f"{show_value(origin)} is no origin", fix)
    return ("*",) if "*" in cors else tuple(cors)
