"""HAProxy in front of the same engine: what the same machine, as busy as it is, lets another proxy do."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.torture.load import ask_once
from tests.torture.stage import until

_CONFIGURATION = """\
global
    maxconn 12200
    no strict-limits
    nbthread 1
defaults
    mode http
    timeout connect 5s
    timeout client 600s
    timeout server 600s
listen front
    bind 127.0.0.1:{port} backlog 4096
    server engine 127.0.0.1:{engine}
"""


def haproxy_program() -> str | None:
    """Where HAProxy is, on the PATH or where Debian puts it."""
    return shutil.which("haproxy", path=os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin")))


@dataclass(frozen=True)
class Rival:
    """A running HAProxy."""

    port: int
    pid: int

    def rss(self) -> int:
        """Resident bytes."""
        rss: int = psutil.Process(self.pid).memory_info().rss
        return rss


@asynccontextmanager
async def haproxy(program: str, engine: int) -> AsyncIterator[Rival]:
    """HAProxy with one thread, and with two files for each client where the system has as many."""
    home = Path(tempfile.mkdtemp(prefix="vct", dir="/tmp"))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    file = home / "haproxy.cfg"
    file.write_text(_CONFIGURATION.format(port=port, engine=engine))
    process = await asyncio.to_thread(subprocess.Popen, [program, "-db", "-f", str(file)], stderr=subprocess.DEVNULL)

    async def answers() -> bool:
        return (await ask_once(port)).status == 200

    try:
        if await until(answers, 10) is None:
            raise TimeoutError("HAProxy does not answer")
        yield Rival(port, process.pid)
    finally:
        process.kill()
        await asyncio.to_thread(process.wait)
        shutil.rmtree(home, ignore_errors=True)
