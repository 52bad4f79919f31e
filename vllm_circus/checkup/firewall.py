"""This machine's own firewall, as far as its rules can be read: ufw, firewalld, nftables, iptables.

Rule: a warning is for a firewall that refuses what no rule lets in, with no rule that names the port. Rules that this
user may not read are a note that says how to.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from vllm_circus.checkup.findings import Found, note, ok, warning
from vllm_circus.checkup.reach import is_loopback
from vllm_circus.checkup.scene import Scene

#: Seconds that each of the tools may take.
_TOOL_LIMIT = 5.0
_TOOLS = ("ufw", "firewall-cmd", "nft", "iptables")


@dataclass(frozen=True)
class Rules:
    """What could be read; None where it could not, or there is no such tool.

    Attributes:
        ufw: ufw.conf, and behind it ufw's own rules where they can be read.
        ports: what firewalld lets in, as `firewall-cmd --list-ports` says it.
        nft: `nft list ruleset`. iptables: `iptables -S`.
        tools: which of the tools are installed.
    """

    ufw: str | None = None
    ports: str | None = None
    nft: str | None = None
    iptables: str | None = None
    tools: tuple[str, ...] = ()


def check_firewall(scene: Scene) -> Iterator[Found]:
    """Whether a firewall of this machine keeps others from the proxy's port."""
    proxy = scene.plan.proxy if scene.plan else None
    if proxy is not None and not is_loopback(proxy.host):
        yield judge_firewall(read_rules(), proxy.port)


def judge_firewall(rules: Rules, port: int) -> Found:
    """The first that forbids the port, as far as can be told, or what could not be read."""
    for text, forbids, what, fix in _judged(rules, port):
        if text is not None and forbids(text, port):
            return warning(what, fix)
    if any(text is not None for text, *_ in _judged(rules, port)):
        return ok(f"no rule of this machine's firewall that can be read forbids port {port}")
    if not rules.tools:
        return ok("no firewall is installed here; one on the way to clients cannot be seen from here")
    return note(
        f"whether a firewall forbids port {port} cannot be read by this user ({', '.join(rules.tools)} is there)",
        "`sudo nft list ruleset`, or `sudo ufw status`, shows the rules",
    )


def _judged(rules: Rules, port: int) -> Iterator[tuple[str | None, Callable[[str, int], bool], str, str]]:
    """What could be read of each firewall, whether that forbids a port, and what to say and do then."""
    yield (
        rules.ufw,
        _ufw_forbids,
        f"ufw is on and no rule of it names port {port}",
        f"`sudo ufw allow {port}/tcp` opens it",
    )
    yield (
        rules.ports,
        _firewalld_forbids,
        f"firewalld runs and does not let in port {port}",
        f"`sudo firewall-cmd --permanent --add-port={port}/tcp` and `sudo firewall-cmd --reload` open it",
    )
    yield (
        rules.nft,
        _nft_forbids,
        f"nftables drops what comes in, and no rule names port {port}",
        f"`sudo nft list ruleset` shows the rules; one with `tcp dport {port} accept` opens it",
    )
    yield (
        rules.iptables,
        _iptables_forbids,
        f"iptables drops what comes in, and no rule names port {port}",
        f"`sudo iptables -I INPUT -p tcp --dport {port} -j ACCEPT` opens it until the next boot",
    )


def _ufw_forbids(text: str, port: int) -> bool:
    on = re.search(r"^ENABLED=yes$", text, re.MULTILINE | re.IGNORECASE) is not None
    return on and "### tuple" in text and not re.search(rf"^### tuple ### allow \w+ {port}\b", text, re.MULTILINE)


def _firewalld_forbids(ports: str, port: int) -> bool:
    """Whether neither `8000/tcp` nor a range such as `8000-8010/tcp` is among them."""
    ranges = re.findall(r"\b(\d+)(?:-(\d+))?/tcp", ports)
    return not any(int(low) <= port <= int(high or low) for low, high in ranges)


def _nft_forbids(text: str, port: int) -> bool:
    chains = re.findall(r"chain \S+ \{[^{}]*?hook input[^{}]*?policy (\w+);", text)
    return "drop" in chains and not _names_port(text, port)


def _iptables_forbids(text: str, port: int) -> bool:
    return "-P INPUT DROP" in text and not _names_port(text, port)


def _names_port(text: str, port: int) -> bool:
    """Whether the port stands anywhere in the rules, alone or in a range; one that lets everything in counts, too."""
    ranges = re.findall(r"\b(\d{1,5})[-:](\d{1,5})\b", text)
    within = any(int(low) <= port <= int(high) for low, high in ranges)
    return within or re.search(rf"\b{port}\b", text) is not None


def read_rules(etc: Path = Path("/etc")) -> Rules:
    """What can be read of the rules, as this user."""
    tools = tuple(tool for tool in _TOOLS if shutil.which(tool, path=_path()))
    return Rules(
        ufw=_ufw(etc / "ufw") if (etc / "ufw/ufw.conf").exists() else None,
        ports=_said("firewall-cmd", "--list-ports") if "firewall-cmd" in tools else None,
        nft=_said("nft", "list", "ruleset") if "nft" in tools else None,
        iptables=_said("iptables", "-S") if "iptables" in tools else None,
        tools=tools,
    )


def _ufw(folder: Path) -> str | None:
    """Its switch, and its rules where they can be read; None where nothing can."""
    texts = []
    for name in ("ufw.conf", "user.rules", "user6.rules"):
        with suppress(OSError):
            texts.append((folder / name).read_text(errors="replace"))
    return "\n".join(texts) or None


def _path() -> str:
    """Where such tools are: a user's PATH often lacks sbin."""
    return os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))


def _said(*command: str) -> str | None:
    """What a tool prints; None where it fails, which it does for most users."""
    found = shutil.which(command[0], path=_path())
    if found is None:
        return None
    try:
        run = subprocess.run(
            [found, *command[1:]],
            capture_output=True,
            text=True,
            timeout=_TOOL_LIMIT,
            check=False,
            stdin=subprocess.DEVNULL,
            errors="replace",
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return run.stdout if run.returncode == 0 else None
