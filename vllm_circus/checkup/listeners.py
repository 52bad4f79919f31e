"""Who listens on which TCP port of this machine, by name and pid where /proc lets us see it.

Parsing is pure; the look at /proc is at the end. Another user's processes do not show what they have open, so a
listener may be known by its port alone.
"""

from __future__ import annotations

import ipaddress
import re
import sys
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from vllm_circus.logline import clean
from vllm_circus.paths import MARK, Instance
from vllm_circus.supervise.journal import read_sessions
from vllm_circus.supervise.proc import environ_of, every_process, read_process

_LISTEN = "0A"  # TCP_LISTEN in include/net/tcp_states.h, as /proc/net/tcp writes it
_INODE = re.compile(r"socket:\[(\d+)\]")


@dataclass(frozen=True)
class Socket:
    """A listening socket: its address, its port, and the number that ties it to who has it open."""

    address: str
    port: int
    inode: int


@dataclass(frozen=True)
class Listener:
    """Who has a listening socket; `pid` is None and `name` empty where we may not see that.

    `owner` is the run directory of the instance that started it, empty for a stranger.
    """

    address: str
    port: int
    pid: int | None = None
    name: str = ""
    owner: str = ""

    def __str__(self) -> str:
        who = f"process {self.pid}" + (f" ({self.name})" if self.name else "")
        return who if self.pid is not None else "a process of another user"


def parse_sockets(lines: Iterable[str]) -> Iterator[Socket]:
    """The listening sockets in lines of /proc/net/tcp or tcp6: proc(5). Lines of another form are passed over."""
    for line in lines:
        fields = line.split()
        if len(fields) > 9 and fields[3] == _LISTEN:
            address, _, port = fields[1].rpartition(":")
            with suppress(ValueError):
                yield Socket(read_address(address), int(port, 16), int(fields[9]))


def read_address(text: str) -> str:
    """An address as the kernel prints it: 32-bit words in the machine's own order. Raises ValueError."""
    data = bytes.fromhex(text)
    if len(data) not in {4, 16}:
        raise ValueError(f"{text!r} is no address")
    words = [data[at : at + 4] for at in range(0, len(data), 4)]
    if sys.byteorder == "little":
        words = [word[::-1] for word in words]
    return str(ipaddress.ip_address(b"".join(words)))


def find_listeners(ports: Collection[int], runs: Path, proc: Path = Path("/proc")) -> tuple[Listener, ...]:
    """Who listens on one of `ports`; `runs` is the folder of all instances' run directories."""
    sockets = [found for found in _sockets(proc) if found.port in ports]
    owners = _owners({found.inode for found in sockets}, proc) if sockets else {}
    sets = started_by_us(runs) if sockets else {}
    return tuple(_listener(found, owners.get(found.inode), sets, runs) for found in sockets)


def _listener(found: Socket, pids: list[int] | None, sets: dict[int, str], runs: Path) -> Listener:
    """Of several processes that share a socket, one of ours is named if there is any: circusd hands its own on."""
    if not pids:
        return Listener(found.address, found.port)
    owners = {pid: owner_of(pid, sets, runs) for pid in pids}
    pid = next((pid for pid in pids if owners[pid]), pids[0])
    return Listener(found.address, found.port, pid, name_of(pid), owners[pid])


def started_by_us(runs: Path) -> dict[int, str]:
    """The leader of every session that our sets started, by the run directory of its set."""
    sets: dict[int, str] = {}
    for journal in runs.glob("*/sessions"):
        with suppress(OSError):
            sessions = read_sessions(journal)
            for session in sessions:
                leader = read_process(session.leader)
                if leader is None or leader.started == session.started:
                    sets[session.leader] = str(journal.parent)
    return sets


def owner_of(pid: int, sets: dict[int, str], runs: Path) -> str:
    """The run directory of the set that a process belongs to: by its session, its mark, or circusd's lock."""
    process = read_process(pid)
    if process is None:
        return ""
    if process.session in sets:
        return sets[process.session]
    start = f"{MARK}=".encode()
    marks = [entry.removeprefix(start) for entry in environ_of(pid) or () if entry.startswith(start)]
    if marks:
        return marks[0].decode(errors="replace")
    return next((str(lock.parent) for lock in runs.glob("*/lock") if _has_pid(lock, pid)), "")


def name_of(pid: int) -> str:
    """What a process is called; empty where it is gone, or of another namespace."""
    with suppress(OSError):
        return clean(Path(f"/proc/{pid}/comm").read_text(errors="replace").strip())
    return ""


def is_of(listener: Listener, instance: Instance) -> bool:
    """Whether it belongs to the set of this instance."""
    return listener.owner == str(instance.run_dir)


def _has_pid(lock: Path, pid: int) -> bool:
    with suppress(OSError):
        return lock.read_text(errors="replace").strip() == str(pid)
    return False


def _sockets(proc: Path) -> Iterator[Socket]:
    for table in ("tcp", "tcp6"):
        with suppress(OSError):  # no IPv6
            yield from parse_sockets((proc / "net" / table).read_text().splitlines()[1:])


def _owners(inodes: Collection[int], proc: Path) -> dict[int, list[int]]:
    """The processes that have each of these sockets open, as far as we may look."""
    found: dict[int, list[int]] = {}
    for process in every_process():
        with suppress(OSError):
            for handle in (proc / str(process.pid) / "fd").iterdir():
                with suppress(OSError):
                    match = _INODE.fullmatch(str(handle.readlink()))
                    if match and int(match[1]) in inodes:
                        found.setdefault(int(match[1]), []).append(process.pid)
    return found
