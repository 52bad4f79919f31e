"""What the machine is like now, gathered once so that planning can stay pure."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vllm_circus import gpu
from vllm_circus.files import version_of
from vllm_circus.gpu import Gpu

_LISTEN = "0A"  # TCP_LISTEN in include/net/tcp_states.h, as /proc/net/tcp writes it


@dataclass(frozen=True)
class Holder:
    """Who listens on a port, in words, and the command that ends it; empty where there is none that is sure."""

    words: str
    end: str = ""


@dataclass(frozen=True)
class Facts:
    """What a plan depends on beside the models file.

    Attributes:
        gpus: every GPU; None where there is no driver (indices are then not checked).
        busy_ports: TCP ports that some process listens on, our own running set's left out.
        cores: processors that we may use.
        programs: where programs that a plan may need were found on the PATH, by name.
        kept_ports: the ports that models of the running set have, by model name: they keep them.
        held_port: the port on which the running set's proxy listens; None where none runs. The proxy may have it.
        holders: who listens on busy ports that the models file writes, as far as that can be seen.
        now: seconds since 1970, by this machine's clock; None leaves what has a date unchecked.
    """

    gpus: tuple[Gpu, ...] | None
    busy_ports: frozenset[int]
    cores: int
    programs: dict[str, str]
    kept_ports: Mapping[str, int] = field(default_factory=dict)
    now: float | None = None
    held_port: int | None = None
    holders: Mapping[int, Holder] = field(default_factory=dict)


@dataclass(frozen=True)
class Entry:
    """What one name in a folder leads to, links followed.

    Attributes:
        size: bytes of a file; 0 for a folder; None where a link leads nowhere.
        link: the name itself is a symbolic link.
    """

    name: str
    folder: bool
    size: int | None
    link: bool = False


class Disk:
    """What planning asks the file system. Tests put a fake in its place; nothing here raises OSError."""

    def exists(self, path: Path) -> bool:
        """Whether there is such a file or folder, for us to see."""
        try:
            return path.exists()
        except (OSError, ValueError):  # a name that is too long, or a NUL
            return False

    def is_folder(self, path: Path) -> bool:
        """Whether there is such a folder, for us to see."""
        try:
            return path.is_dir()
        except (OSError, ValueError):
            return False

    def mode(self, path: Path) -> int | None:
        """The permission bits of a file; None where there is none (or it is a folder)."""
        try:
            return path.stat().st_mode & 0o777 if path.is_file() else None
        except (OSError, ValueError):
            return None

    def text(self, path: Path) -> str | None:
        """What stands in a file; None where it cannot be read, or is no text."""
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, ValueError):
            return None

    def version(self, path: Path) -> str | None:
        """What changes when a file is written, and says nothing of what it holds; None where there is none."""
        try:
            return version_of(path)
        except (OSError, ValueError):
            return None

    def size(self, path: Path) -> int | None:
        """Bytes of a file; None where there is none."""
        try:
            return path.stat().st_size if path.is_file() else None
        except (OSError, ValueError):
            return None

    def names(self, folder: Path) -> list[str]:
        """What is in a folder, sorted; nothing where there is none."""
        try:
            return sorted(entry.name for entry in folder.iterdir())
        except (OSError, ValueError):
            return []

    def entries(self, folder: Path) -> tuple[Entry, ...] | None:
        """What is in a folder, sorted by name; None where it cannot be read, or is none."""
        try:
            with os.scandir(folder) as found:
                return tuple(sorted(map(_entry, found), key=lambda entry: entry.name))
        except (OSError, ValueError):
            return None

    def head(self, path: Path, count: int) -> bytes | None:
        """The first bytes of a file, `count` at most; None where it is none, or cannot be read."""
        try:
            if not path.is_file():  # a pipe would make us wait
                return None
            with path.open("rb") as file:
                return file.read(count)
        except (OSError, ValueError):
            return None

    def identity(self, path: Path) -> tuple[int, int] | None:
        """What tells a file or folder from every other, whatever its path; None where there is none."""
        try:
            about = path.stat()
        except (OSError, ValueError):
            return None
        return about.st_dev, about.st_ino

    def misfit(self, certificate: Path, key: Path) -> str:
        """Why a TLS server cannot use two PEM files together; empty where it can."""
        return _misfit(certificate, key)

    def home(self) -> Path:
        """What `~` stands for."""
        return Path(os.path.expanduser("~"))  # noqa: PTH111 - Path.home() raises where there is none

    def which(self, program: str) -> str | None:
        """The absolute path of an executable: on the PATH, beside our own Python, or named by its path."""
        return _which(program)


def gather_facts(
    own_ports: frozenset[int] = frozenset(),
    kept_ports: Mapping[str, int] | None = None,
    gpus: Callable[[], tuple[Gpu, ...] | None] | None = None,
    held_port: int | None = None,
) -> Facts:
    """Look at the machine; takes a few milliseconds.

    `own_ports` belong to the running set and count as free; `kept_ports` are those of its models, by name, and
    `held_port` is its proxy's. `gpus` is asked for the GPUs instead of the driver, by whoever has them already.
    """
    return Facts(
        gpus=(gpus or _gpus)(),
        busy_ports=listening_ports() - own_ports,
        cores=len(os.sched_getaffinity(0)),
        programs={"python": sys.executable} | {name: path for name in ("vllm",) if (path := _which(name))},
        kept_ports=dict(kept_ports or {}),
        now=time.time(),
        held_port=held_port,
    )


def listening_ports() -> frozenset[int]:
    """Every TCP port of this network namespace that somebody listens on, whatever the address."""
    tables = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
    return frozenset(port for table in tables for port in parse_listening(_lines(table)))


def parse_listening(lines: Iterable[str]) -> Iterator[int]:
    """Ports in state LISTEN from the lines of /proc/net/tcp or tcp6: proc(5)."""
    for line in lines:
        fields = line.split()
        if len(fields) > 3 and fields[3] == _LISTEN:
            yield int(fields[1].rpartition(":")[2], 16)


def _lines(table: Path) -> list[str]:
    try:
        return table.read_text().splitlines()[1:]
    except OSError:  # no IPv6
        return []


def _gpus() -> tuple[Gpu, ...] | None:
    try:
        return gpu.list_gpus()
    except gpu.NoDriver:
        return None


def _entry(found: os.DirEntry[str]) -> Entry:
    """Only a stat, and never an error: what is behind a name may go at any moment."""
    try:
        about = found.stat()
    except OSError:  # a link that leads nowhere, or in a circle
        return Entry(found.name, folder=False, size=None, link=found.is_symlink())
    folder = stat.S_ISDIR(about.st_mode)
    return Entry(found.name, folder, 0 if folder else about.st_size, found.is_symlink())


def _misfit(certificate: Path, key: Path) -> str:
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key, password=lambda: "")  # else OpenSSL asks the terminal for one
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            return "the certificate is for another key"
        if error.reason is None:
            return "one of the two is no whole PEM file"
        return f"OpenSSL does not take them: {error.reason.replace('_', ' ').lower()}"
    except (OSError, ValueError) as error:
        return str(error)
    return ""


def _which(program: str) -> str | None:
    """Our own environment's folder comes last: a service's PATH often lacks it."""
    beside = str(Path(sys.executable).parent)
    found = shutil.which(program, path=os.pathsep.join((os.environ.get("PATH", os.defpath), beside)))
    return str(Path(found).absolute()) if found else None
