"""The public port with TLS, the unix socket, and workers that come and go while clients do."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path

import pytest

from tests.e2e.conftest import PATIENCE, Circus, await_that, write_models
from tests.proxy.certificates import make_pair

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

BODY = json.dumps({"model": "alpha", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 3})


class UnixConnection(HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=PATIENCE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(str(self._path))


def ask(connection: HTTPConnection) -> int:
    """The status of a request on a connection of its own; the answer must be whole."""
    connection.request("POST", "/v1/chat/completions", BODY, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    document = json.loads(answer.read())
    connection.close()
    assert document.get("choices") or answer.status != 200
    return answer.status


def circusctl(circus: Circus, *arguments: str) -> None:
    endpoint = f"ipc://{circus.home}/run/default/control.sock"
    command = [sys.executable, "-m", "circus.circusctl", "--timeout", "60", "--endpoint", endpoint, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def proxy_pids(circus: Circus) -> set[int]:
    return {worker["pid"] for worker in circus.status()["proxy"]["workers"]}


@contextmanager
def load(connect: Callable[[], HTTPConnection], found: list[int | str]) -> Iterator[None]:
    """Four clients that ask without end, each time on a new connection; what they got goes to `found`."""
    over = threading.Event()

    def go_on() -> None:
        while not over.is_set():
            try:
                found.append(ask(connect()))
            except (OSError, ValueError, AssertionError) as error:
                found.append(repr(error))

    clients = [threading.Thread(target=go_on) for _ in range(4)]
    for client in clients:
        client.start()
    try:
        yield
    finally:
        over.set()
        for client in clients:
            client.join(PATIENCE)


@pytest.fixture
def public(models_file: Path) -> Path:
    """The unix socket of a set that has one, and TLS on its port."""
    certificate, key = make_pair(models_file.parent)
    options = f"tls: {{certificate: {certificate.name}, key: {key.name}}}, unix_socket: public, "
    models_file.write_text(models_file.read_text().replace("proxy: {", "proxy: {" + options))
    return models_file.parent / "public"


def test_port_and_unix_socket_from_up_to_down(
    circus: Circus, models_file: Path, public: Path, free_port: Callable[[], int]
) -> None:
    port = int(models_file.read_text().partition("port: ")[2].partition("}")[0])
    context = ssl.create_default_context(cafile=str(models_file.parent / "proxy.crt"))

    def https() -> int:
        return ask(HTTPSConnection("127.0.0.1", port, timeout=PATIENCE, context=context))

    circus("up", str(models_file), "-d", "--wait")
    assert https() == 200
    assert ask(UnixConnection(public)) == 200
    assert public.stat().st_mode & 0o777 == 0o660

    beside = write_models(models_file.with_name("other.yaml"), free_port)
    beside.write_text(beside.read_text().replace("proxy: {", "proxy: {unix_socket: public, "))
    assert "somebody listens on" in Circus(circus.home, "other")("up", str(beside), "-d", code=1).stderr
    assert ask(UnixConnection(public)) == 200

    os.kill(int((circus.home / "run/default/lock").read_text()), signal.SIGKILL)
    await_that(lambda: not circus.processes(), 30)
    assert public.is_socket()
    circus("up", str(models_file), "-d", "--wait")
    assert ask(UnixConnection(public)) == https() == 200
    circus("down")
    assert not public.exists()

    public.write_text("precious")
    assert f"{public} is a file" in circus("up", str(models_file), "-d", code=2).stderr
    assert public.read_text() == "precious"


def test_no_request_is_lost_while_workers_are_replaced(circus: Circus, models_file: Path, public: Path) -> None:
    circus("up", str(models_file), "-d", "--wait")
    (first,) = proxy_pids(circus)
    found: list[int | str] = []
    with load(lambda: UnixConnection(public), found):
        await_that(lambda: len(found) > 20)
        circusctl(circus, "incr", "proxy")  # new before old
        await_that(lambda: len(proxy_pids(circus)) == 2)
        circusctl(circus, "decr", "proxy")
        await_that(lambda: len(proxy_pids(circus)) == 1)
        (second,) = proxy_pids(circus)
        circusctl(circus, "restart", "proxy")  # old before new: clients wait meanwhile
        await_that(lambda: proxy_pids(circus).isdisjoint({first, second}) and len(proxy_pids(circus)) == 1)
        before = len(found)
        await_that(lambda: len(found) > before + 20)
    assert set(found) == {200}, [what for what in found if what != 200][:5]
