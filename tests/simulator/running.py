"""A simulator in a process of its own, and what a test asks it with: literal bytes over a socket."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import psutil

PATIENCE = 20.0
"""Seconds after which something that should happen is not going to."""


T = TypeVar("T")


def until(look: Callable[[], T], patience: float = PATIENCE) -> T:
    """What `look` gives as soon as it gives something true."""
    deadline = time.monotonic() + patience
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, f"nothing after {patience} s: {look}"
        time.sleep(0.01)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Answer:
    """An answer, taken apart."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[bytes]:
        """What follows `data: ` in each event of a stream."""
        return re.findall(rb"^data: (.*)$", dechunk(self.body), re.MULTILINE)


def dechunk(body: bytes) -> bytes:
    """A chunked body without its coding."""
    whole = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        length = int(size, 16)
        whole += body[:length]
        body = body[length + 2 :]
    return whole


def take_apart(raw: bytes) -> Answer:
    head, _, body = raw.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    return Answer(int(status.split()[1]), dict(line.split(": ", 1) for line in lines), body)


def steady(raw: bytes) -> bytes:
    """An answer with what changes from one time to the next replaced."""
    raw = re.sub(rb"date: [^\r]+", b"date: DATE", raw)
    return re.sub(rb'"created":\d+', b'"created":0', raw)


@dataclass
class Running:
    """A simulator that was started."""

    process: subprocess.Popen[bytes]
    folder: Path
    port: int
    path: Path | None = None
    started: float = field(default_factory=time.monotonic)

    @property
    def out(self) -> str:
        return (self.folder / "out").read_text()

    @property
    def err(self) -> str:
        return (self.folder / "err").read_text()

    @property
    def raw_err(self) -> bytes:
        return (self.folder / "err").read_bytes()

    def connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX if self.path else socket.AF_INET)
        connection.settimeout(PATIENCE)
        try:
            connection.connect(str(self.path) if self.path else ("127.0.0.1", self.port))
        except OSError:
            connection.close()
            raise
        return connection

    def wait_ready(self) -> Running:
        def ready() -> bool:
            assert self.process.poll() is None, self.err
            with contextlib.suppress(OSError):
                return self.ask("GET", "/health").status == 200
            return False

        until(ready)
        return self

    def wait(self) -> int:
        return self.process.wait(PATIENCE)

    def send(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> socket.socket:
        """Send a request; the connection, of which the server knows that it is for this one only."""
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        lines = {"Host": "sim", "Connection": "close"} | dict(headers or {})
        if data or method == "POST":
            lines = {"Content-Type": "application/json", "Content-Length": str(len(data))} | lines
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        connection = self.connect()
        connection.sendall(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + data)
        return connection

    def raw(self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None) -> bytes:
        """Every byte that the server sends until it closes."""
        with self.send(method, path, body, headers) as connection:
            return read_all(connection)

    def ask(self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None) -> Answer:
        return take_apart(self.raw(method, path, body, headers))

    def chat(self, **fields: object) -> Answer:
        return self.ask("POST", "/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}]} | fields)

    def stream(self, **fields: object) -> socket.socket:
        """A stream that has begun: the connection, after its first bytes."""
        body = {"messages": [{"role": "user", "content": "hi"}], "stream": True} | fields
        connection = self.send("POST", "/v1/chat/completions", body)
        assert connection.recv(1, socket.MSG_PEEK)
        return connection

    def metric(self, name: str) -> float:
        """The value of the only series that begins with `name`."""
        found = [line for line in self.ask("GET", "/metrics").body.decode().splitlines() if line.startswith(name)]
        assert len(found) == 1, found
        return float(found[0].split()[-1])

    def tree(self) -> dict[str, psutil.Process]:
        """The engine's processes by their titles."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        return {child.cmdline()[0]: child for child in children}


class Simulate(Protocol):
    """The fixtures `begin` and `simulate`."""

    def __call__(self, *flags: str, environ: dict[str, str] | None = None) -> Running: ...


def read_all(connection: socket.socket) -> bytes:
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


def start(folder: Path, *flags: str, environ: Mapping[str, str] | None = None, model: str = "org/tiny") -> Running:
    """Start a simulator that loads in no time and answers fast, unless the flags say otherwise."""
    port = free_port()
    where = () if "--uds" in flags else ("--host", "127.0.0.1", "--port", str(port))
    fast = ("--sim-load-seconds", "0", "--sim-first-token-seconds", "0", "--sim-token-seconds", "0.001")
    chosen = [
        word for name, value in zip(fast[::2], fast[1::2], strict=True) if name not in flags for word in (name, value)
    ]
    if "--sim-exit-seconds" not in flags:
        chosen += ["--sim-exit-seconds", "0"]
    command = [sys.executable, "-m", "vllm_circus.simulator", "serve", model, *where, *chosen, *flags]
    path = Path(flags[flags.index("--uds") + 1]) if "--uds" in flags else None
    with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
        process = subprocess.Popen(
            command, stdout=out, stderr=err, env=dict(os.environ) | dict(environ or {}), start_new_session=True
        )
    return Running(process, folder, port, path)


def end(running: Running) -> None:
    """Leave nothing of it, orphans too: they are in its group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(running.process.pid, signal.SIGKILL)
    running.process.wait(PATIENCE)


@contextlib.contextmanager
def running(folder: Path, *flags: str, environ: Mapping[str, str] | None = None) -> Iterator[Running]:
    one = start(folder, *flags, environ=environ)
    try:
        yield one.wait_ready()
    finally:
        end(one)


def left(one: Running) -> list[str]:
    """Titles of the processes of its group, without the dead."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == one.process.pid and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.cmdline()[0])
        except (ProcessLookupError, psutil.NoSuchProcess, IndexError):
            continue
    return sorted(found)
