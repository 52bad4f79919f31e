"""Port conflicts: each port that is planned, and who listens there."""

from __future__ import annotations

import errno
import socket
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from vllm_circus.checkup.findings import Found, fault, ok, warning
from vllm_circus.checkup.listeners import Listener, find_listeners, is_of
from vllm_circus.checkup.scene import Scene, written_ports
from vllm_circus.paths import DEFAULT_INSTANCE
from vllm_circus.view.units import counted


def check_ports(scene: Scene) -> Iterator[Found]:
    """Whether each planned port is free, or its own model's."""
    planned = planned_ports(scene)
    if planned:
        listeners = find_listeners(planned, scene.instance.run_dir.parent)
        yield from judge_ports(scene, planned, listeners)
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
    return written_ports(scene.loaded) if scene.loaded else {}


def judge_ports(scene: Scene, planned: Mapping[int, str], listeners: Iterable[Listener]) -> Iterator[Found]:
    """Who is in the way; where nobody is, how many ports were looked at."""
    strangers = {
        found.port: found for found in listeners if not (scene.daemon is not None and is_of(found, scene.instance))
    }
    for port, found in sorted(strangers.items()):
        yield _conflict(scene, port, planned[port], found)
    if not strangers:
        own = "are free or the set's own" if scene.daemon is not None else "are free"
        numbers = ", ".join(map(str, sorted(planned)[:6])) + (" …" if len(planned) > 6 else "")
        yield ok(f"{counted(len(planned), 'planned port')} {own}: {numbers}")


def _conflict(scene: Scene, port: int, whose: str, found: Listener) -> Found:
    option = "`proxy.port`" if whose == "the proxy" else "its `port`"
    what = f"port {port} of {whose} is taken: {found} listens there"
    if scene.daemon is None and is_of(found, scene.instance):
        return warning(f"{what}, left by an earlier set", f"{scene.words('down')} ends what is left")
    if found.owner:
        name = found.owner.rpartition("/")[2]
        option_text = "" if name == DEFAULT_INSTANCE else f"--instance {name} "
        return fault(
            f"{what}, of the instance {name}", f"`vllm-circus {option_text}down` stops that, or change {option}"
        )
    model = scene.plan.model(whose) if scene.plan else None
    grave = warning if model is not None and not model.enabled else fault
    if found.pid is None:
        return grave(what, f"`sudo ss -ltnp 'sport = :{port}'` names it; end it, or change {option} in the models file")
    return grave(what, f"`kill {found.pid}` ends it, or change {option} in the models file")
