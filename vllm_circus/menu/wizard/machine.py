"""What the wizard knows of the machine: looked at anew for each question that needs it."""

from __future__ import annotations

import errno
import importlib.util
import ipaddress
import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vllm_circus import facts, gpu
from vllm_circus.gpu import Gpu, Holder, NoDriver
from vllm_circus.hostport import join_host_port
from vllm_circus.logline import clean
from vllm_circus.menu.wizard.checks import short
from vllm_circus.plan.public import is_network_address

if TYPE_CHECKING:
    from vllm_circus.view.outline import Outline


@dataclass(frozen=True)
class Cards:
    """The GPUs: `trouble` says why there are none; `users` names who uses which."""

    gpus: tuple[Gpu, ...]
    trouble: str = ""
    users: tuple[tuple[int, str], ...] = ()

    def used_by(self, index: int) -> str:
        """Who uses a GPU now, with commas between; empty where nobody does, or nobody tells."""
        return ", ".join(user for at, user in self.users if at == index)


def look_at_cards(outline: Outline | None) -> Cards:
    """The GPUs, their load and their users; takes as long as the driver does."""
    try:
        gpus = gpu.list_gpus()
    except NoDriver as error:
        return Cards((), str(error))
    if not gpus:
        return Cards((), "the driver works, but shows no GPU")
    return Cards(gpus, users=tuple(_users(outline)))


def _users(outline: Outline | None) -> list[tuple[int, str]]:
    ours = [(index, model.name) for model in (outline.models if outline else ()) for index in model.gpus or ()]
    found = list(ours)
    known = {index for index, _ in ours}
    with suppress(NoDriver):
        for index, holders in gpu.list_holders().items():
            if index not in known:
                found += [(index, _program(holder)) for holder in holders[:2]]
    return found


def _program(holder: Holder) -> str:
    with suppress(OSError):
        return f"{clean(Path(f'/proc/{holder.pid}/comm').read_text().strip())} (process {holder.pid})"
    return f"process {holder.pid}"


def own_ports(outline: Outline | None) -> frozenset[int]:
    """Ports that the running set holds: free for a set that takes its place."""
    return frozenset({outline.port, *(model.port for model in outline.models)}) if outline else frozenset()


def busy_ports(outline: Outline | None) -> frozenset[int]:
    """Ports that others listen on."""
    return facts.listening_ports() - own_ports(outline)


def who_listens(port: int) -> str:
    """The program that has a port: `python3 (process 123)`; empty where it may not be seen."""
    import psutil

    with suppress(psutil.Error, OSError):
        for one in psutil.net_connections("tcp"):
            if one.status == psutil.CONN_LISTEN and one.laddr and one.laddr[1] == port and one.pid:
                return f"{clean(psutil.Process(one.pid).name())} (process {one.pid})"
    return ""


def bad_address(host: str, port: int) -> str:
    """Why nobody could listen there; empty where somebody could, or the port is only in use."""
    how = "write an address such as 0.0.0.0, 127.0.0.1 or ::1, or a host's name"
    if not is_network_address(host):
        return f"{short(host)} is no network address: {how}" if host else how
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except (socket.gaierror, UnicodeError):
        return f"there is no host {short(host)}: {how}"
    except OSError as error:
        if error.errno in {errno.EACCES, errno.EPERM}:
            return f"port {port} is for root alone here (user {os.geteuid()} asks): choose one from 1024"
        if error.errno == errno.EADDRNOTAVAIL:
            return f"this machine has no address {host}: write one such as 0.0.0.0 or 127.0.0.1"
        if error.errno != errno.EADDRINUSE:
            return f"nobody could listen on {join_host_port(host, port)}: {error.strerror or error}"
    return ""


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def has_hub() -> bool:
    """Whether the extra for Hugging Face is installed."""
    return importlib.util.find_spec("huggingface_hub") is not None
