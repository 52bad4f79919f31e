"""Whether clients reach the proxy: on this machine, on its own addresses, with TLS, with their keys.

Nothing here comes from outside of the machine, so a firewall on the way or a router is beyond what can be told.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

from vllm_circus.checkup.asking import Reply, Target, ask
from vllm_circus.checkup.findings import Found, fault, note, ok, warning
from vllm_circus.checkup.patience import all_within
from vllm_circus.checkup.scene import Scene
from vllm_circus.clientkeys import NoKeys, keys_in_file, keys_in_variable
from vllm_circus.plan.types import ProxyPlan
from vllm_circus.supervise.address import bind_error

_EVERY_V4, _EVERY_V6 = "0.0.0.0", "::"  # noqa: S104 - compared, not bound
_DETOURS = ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")
#: Addresses that are asked at most; a machine with many containers has hundreds.
_MOST_ADDRESSES = 8


def check_proxy(scene: Scene) -> Iterator[Found]:
    """A real request to the proxy, as a client on this machine would send it."""
    if scene.running is None:
        return
    proxy = scene.running.proxy
    target = loopback_target(proxy)
    yield from judge_detour(os.environ)
    yield judge_proxy(scene, target, ask(target, "/v1/models", key=_a_key(scene)))
    if proxy.unix_socket:
        unix = Target(unix=proxy.unix_socket)
        yield judge_proxy(scene, unix, ask(unix, "/v1/models", key=_a_key(scene)))


def loopback_target(proxy: ProxyPlan) -> Target:
    """Where a client on this machine finds it."""
    host = {_EVERY_V4: "127.0.0.1", _EVERY_V6: "::1"}.get(proxy.host, proxy.host)
    return Target(host, proxy.port, tls=proxy.tls_certificate is not None)


def judge_proxy(scene: Scene, target: Target, reply: Reply) -> Found:
    """What `/v1/models` through the proxy says."""
    path = f"/v1/models at {target}"
    if reply.status == 200 and (names := reply.names()) is not None:
        return ok(f"the proxy answers {path}: it lists {', '.join(names[:6]) or 'no model'}")
    if reply.status == 401:
        return note(
            f"the proxy answers at {target}, and asks for a key that cannot be read here",
            "run this as the user who has the keys",
        )
    said = reply.error or f"status {reply.status}"
    return fault(
        f"the proxy does not answer {path}: {said}", f"see {scene.words('logs proxy')} and {scene.words('status')}"
    )


def judge_detour(environ: Mapping[str, str]) -> Iterator[Found]:
    """Variables that send clients of this shell by way of another machine, which does not know ours."""
    detour = next((name for name in _DETOURS if environ.get(name)), None)
    spared = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    if detour is not None and not any(word in spared for word in ("127.0.0.1", "localhost", "*")):
        yield note(
            f"{detour} is set here, so curl and Python's clients ask another machine for 127.0.0.1",
            "`export no_proxy=localhost,127.0.0.1` in the client's shell",
        )


def _a_key(scene: Scene) -> str | None:
    """One of the clients' keys; None where there are none, or they are not ours to read."""
    proxy = scene.running.proxy if scene.running else None
    with suppress(NoKeys):
        if proxy is not None and proxy.keys_file:
            return keys_in_file(Path(proxy.keys_file))[0]
        if proxy is not None and proxy.keys_env:
            return keys_in_variable(proxy.keys_env, scene.environ)[0]
    return None


def check_keys(scene: Scene) -> Iterator[Found]:
    """Whether the proxy asks for keys where it is to, and for none where it is not."""
    if scene.running is None:
        return
    proxy = scene.running.proxy
    reply = ask(loopback_target(proxy), "/v1/models")
    if reply.status:
        yield judge_keys(scene, proxy, reply.status)


def judge_keys(scene: Scene, proxy: ProxyPlan, status: int) -> Found:
    """`status` is what a request without a key was answered with."""
    keyed = bool(proxy.keys_file or proxy.keys_env)
    if keyed and status != 401:
        return fault(
            f"keys are configured, but a request without one is answered {status}",
            f"{scene.words('down')}, then {scene.start}; then {scene.words('doctor')} again",
        )
    if keyed:
        return ok("the proxy asks every client for a key")
    return ok("no key is asked for, as it is configured")


def check_addresses(scene: Scene) -> Iterator[Found]:
    """Whether the proxy can be reached on this machine's own addresses."""
    proxy = scene.plan.proxy if scene.plan else None
    if proxy is None:
        return
    if is_loopback(proxy.host):
        yield note(
            f"the proxy listens on {proxy.host} alone: no other machine reaches it",
            "if others are to, write `proxy.host: 0.0.0.0` and `proxy.keys`",
        )
    elif scene.running is None:
        yield from judge_host(proxy.host)
    else:
        hosts = own_addresses(proxy.host)[:_MOST_ADDRESSES]
        tls = proxy.tls_certificate is not None
        targets = [Target(host, proxy.port, tls=tls) for host in hosts]
        answers = all_within(10.0, [partial(ask, target, "/v1/models", timeout=3.0) for target in targets])
        late = Reply(error="no end of its answer")
        replies = [answer.value or late for answer in answers]
        yield from judge_addresses(proxy.port, zip(hosts, replies, strict=True))


def judge_addresses(port: int, replies: Iterable[tuple[str, Reply]]) -> Iterator[Found]:
    """Any answer of HTTP is one: whoever is asked for a key has reached the proxy."""
    reached = []
    for host, reply in replies:
        if reply.status:
            reached.append(host)
        else:
            yield warning(
                f"nobody answers on {host}, port {port}: {reply.error}",
                "a rule of this machine's own firewall may forbid it; see below, and `ip address`",
            )
    if reached:
        yield ok(f"the proxy answers on {', '.join(reached)}")


def judge_host(host: str) -> Iterator[Found]:
    """Whether this machine has the address that the proxy is to listen on."""
    if error := bind_error(host, 0):
        fix = "`ip address` lists this machine's; correct `proxy.host`"
        yield fault(f"nobody could listen on {host}: {error.strerror or error}", fix)
    else:
        yield ok(f"this machine has the address {host}, so the proxy can listen there")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def own_addresses(host: str) -> list[str]:
    """This machine's addresses at which a proxy that listens on `host` should answer; loopback is asked elsewhere."""
    if host not in {_EVERY_V4, _EVERY_V6}:
        return [host]
    import psutil

    family = socket.AF_INET if host == _EVERY_V4 else socket.AF_INET6
    every = [each.address for found in psutil.net_if_addrs().values() for each in found if each.family == family]
    addresses = [address for address in every if "%" not in address]  # link-local: only with the interface's name
    return [address for address in dict.fromkeys(addresses) if not is_loopback(address)]
