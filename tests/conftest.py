"""What every test may use: short private folders (sockets have short names) and ports that are free."""

from __future__ import annotations

import shutil
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A wall clock says nothing about a function where another process may have the core meanwhile.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """A private folder with a name short enough for unix sockets; gone afterwards."""
    path = Path(tempfile.mkdtemp(prefix="vc", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def free_port() -> Callable[[], int]:
    """A function that names a loopback port which nobody listens on, another one at each call."""
    given: set[int] = set()

    def find() -> int:
        while True:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port: int = probe.getsockname()[1]
            if port not in given:
                given.add(port)
                return port

    return find


@pytest.fixture(scope="session", autouse=True)
def _interrupts_arrive() -> None:
    """Ctrl-C works in what tests start: a shell's background job ignores SIGINT, and every child would inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
