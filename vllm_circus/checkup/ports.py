"""Port conflicts: each port that is planned, who listens there, and whether this user may."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from vllm_circus.checkup.findings import Found, fault, ok, warning
from vllm_circus.checkup.listeners import Listener, find_listeners, is_of
from vllm_circus.checkup.scene import Scene
from vllm_circus.paths import DEFAULT_INSTANCE
from vllm_circus.plan.engines import HOST
from vllm_circus.plan.ports import written_ports
from vllm_circus.supervise.address import bind_error
from vllm_circus.view.units import counted

_SYSCTL = "net.ipv4.ip_unprivileged_port_start"
_FIRST_FOR_ALL = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")


def check_ports(scene: Scene) -> Iterator[Found]:
    """Whether each planned port is free, or its own model's."""
    planned = planned_ports(scene)
    if planned:
        listeners = find_listeners(planned, scene.instance.run_dir.parent)
        free = planned.keys() - {found.port for found in listeners} if scene.daemon is None else set()
        yield from judge_ports(scene, planned, listeners, refused_ports(scene, free))
    path = scene.plan.proxy.unix_socket if scene.plan else None
    if path and scene.daemon is None and (found := judge_unix_socket(Path(path))):
        yield found


def judge_unix_socket(path: Path) -> Found | None:
    """What keeps a set from listening on the proxy's unix socket; None where nothing does, or nobody can tell."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return None if path.parent.is_dir() else fault(f"there is no folder {path.parent}", f"`mkdir -p {path.parent}`")
    if not stat.S_ISSOCK(mode):
        return fault(f"{path} is in the way: it is no socket", "move it away, or change `proxy.unix_socket`")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        taken = probe.connect_ex(str(path)) in {0, errno.EAGAIN}
    fix = "`ss -lxp` names it; end it, or change `proxy.unix_socket`"
    return fault(f"somebody listens on {path} already", fix) if taken else None


def planned_ports(scene: Scene) -> dict[int, str]:
    """Every port of TCP that the set has or is to have, and whose it is; those of engines on unix sockets are names."""
    if scene.plan is not None:
        ports = {model.endpoint.port: model.name for model in scene.plan.models if model.endpoint.uds is None}
        return ports | {scene.plan.proxy.port: "the proxy"}
    return written_ports(scene.loaded.config) if scene.loaded else {}


def refused_ports(scene: Scene, ports: Iterable[int]) -> dict[int, OSError]:
    """Those on which this user could not listen although nobody does; what is wrong with an address is told elsewhere.

    What may be listened on is for the kernel to say: it depends on capabilities, on its settings and on modules.
    """
    proxy = scene.plan.proxy if scene.plan else scene.loaded.config.proxy if scene.loaded else None
    tried = {port: bind_error(proxy.host if proxy and port == proxy.port else HOST, port) for port in ports}
    return {port: error for port, error in tried.items() if error and error.errno in {errno.EACCES, errno.EADDRINUSE}}


def judge_ports(
    scene: Scene,
    planned: Mapping[int, str],
    listeners: Iterable[Listener],
    refused: Mapping[int, OSError] = MappingProxyType({}),
) -> Iterator[Found]:
    """Who is in the way, and what may not be listened on; where nothing is, how many ports were looked at."""
    strangers = {
        found.port: found for found in listeners if not (scene.daemon is not None and is_of(found, scene.instance))
    }
    for port, found in sorted(strangers.items()):
        yield _conflict(scene, port, planned[port], found)
    for port, error in sorted(refused.items()):
        yield _refusal(scene, port, planned[port], error)
    if not strangers and not refused:
        own = "are free or the set's own" if scene.daemon is not None else "are free"
        numbers = ", ".join(map(str, sorted(planned)[:6])) + (" …" if len(planned) > 6 else "")
        yield ok(f"{counted(len(planned), 'planned port')} {own}: {numbers}")


def _refusal(scene: Scene, port: int, whose: str, error: OSError, settings: Path = _FIRST_FOR_ALL) -> Found:
    grave, change = _grave(scene, whose), f"change {_option(whose)}"
    if error.errno == errno.EADDRINUSE:
        what = f"port {port} of {whose} is taken, although nobody listens there"
        return grave(what, f"`sudo ss -tanp 'sport = :{port}'` shows by whom; end it, or {change}")
    what = f"user {os.geteuid()} may not listen on port {port} of {whose}: {error.strerror}"
    first = _first_for_all(settings)
    if port >= first:
        return grave(what, f"a rule of this machine forbids it: `dmesg` may say which; or {change}")
    allow = f"`sudo sysctl -w {_SYSCTL}={port}`"
    return grave(
        f"{what}; those below {first} need CAP_NET_BIND_SERVICE", f"{change}, or {allow} lets every user have it"
    )


def _first_for_all(settings: Path) -> int:
    """The first port that needs no privilege: ip_unprivileged_port_start in the kernel's ip-sysctl.rst."""
    try:
        return int(settings.read_text())
    except (OSError, ValueError):
        return 1024


def _option(whose: str) -> str:
    return "`proxy.port`" if whose == "the proxy" else "its `port`"


def _grave(scene: Scene, whose: str) -> Callable[[str, str], Found]:
    """How bad it is where the port of this one cannot be had."""
    model = scene.plan.model(whose) if scene.plan else None
    return warning if model is not None and not model.enabled else fault


def _conflict(scene: Scene, port: int, whose: str, found: Listener) -> Found:
    option = _option(whose)
    what = f"port {port} of {whose} is taken: {found} listens there"
    if scene.daemon is None and is_of(found, scene.instance):
        return warning(f"{what}, left by an earlier set", f"{scene.words('down')} ends what is left")
    if found.owner:
        name = found.owner.rpartition("/")[2]
        option_text = "" if name == DEFAULT_INSTANCE else f"--instance {name} "
        return fault(
            f"{what}, of the instance {name}", f"`vllm-circus {option_text}down` stops that, or change {option}"
        )
    grave = _grave(scene, whose)
    if found.pid is None:
        return grave(what, f"`sudo ss -ltnp 'sport = :{port}'` names it; end it, or change {option} in the models file")
    return grave(what, f"`kill {found.pid}` ends it, or change {option} in the models file")
