"""A proxy worker as a process of its own, between scripted ends."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.plans import model_plan
from tests.proxy.scripted import DEADLINE, Backend, Message, Peer, get, post, read_message, until
from vllm_circus.config.models import Limits
from vllm_circus.paths import Instance
from vllm_circus.plan.types import PLAN_VERSION, Adapter, Endpoint, ModelPlan, Plan, ProxyPlan, dump_plan
from vllm_circus.render.ini import BACKLOG, PROXY_MALLOC


def a_model(name: str, port: int, **changes: Any) -> ModelPlan:
    values: dict[str, Any] = {
        "model": f"org/{name}",
        "engine": "simulator",
        "argv": (),
        "keyed": False,
        "endpoint": Endpoint("127.0.0.1", port),
        "gpus": None,
        "drain_timeout": 1.0,
        "stop_timeout": 1.0,
    }
    return model_plan(name, **(values | changes))


def a_proxy(**changes: Any) -> ProxyPlan:
    values: dict[str, Any] = {
        "host": "127.0.0.1",
        "port": 8000,
        "workers": 1,
        "cors": (),
        "metrics": True,
        "request_logging": False,
        "default_model": None,
        "drain_timeout": 5.0,
        "limits": Limits(),
        "keys_file": None,
        "keys_env": None,
    }
    return ProxyPlan(**(values | changes))


def a_plan(run_dir: Path, *models: ModelPlan, **proxy: Any) -> Plan:
    instance = Instance("test", run_dir, run_dir, run_dir, run_dir)
    return Plan(PLAN_VERSION, instance, "models.yaml", a_proxy(**proxy), models)


@dataclass
class Worker:
    """A running worker and its way in."""

    plan: Plan
    port: int
    process: subprocess.Popen[bytes]
    log: Path
    clients: list[Peer] = field(default_factory=list)

    def client(self) -> Peer:
        peer = Peer(socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE))
        peer.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.clients.append(peer)
        return peer

    def ask(self, data: bytes, **options: Any) -> Message:
        """The response to these bytes, on a connection of their own."""
        client = self.client()
        client.send(data)
        message = read_message(client, **options)
        client.close()
        return message

    def chat(self, body: bytes, *lines: bytes) -> Message:
        return self.ask(post(body, *lines))

    def get(self, path: bytes, *lines: bytes) -> Message:
        return self.ask(get(path, *lines))

    def hang_up(self) -> None:
        for peer in self.clients:
            peer.close()
        self.clients.clear()

    def memory(self) -> int:
        """Resident bytes."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def cpu_seconds(self) -> float:
        """That it has had of a core so far, by the clock's ticks of 10 ms."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(DEADLINE)


Start = Callable[..., Worker]


def start_worker(plan: Plan, environ: dict[str, str] | None = None, nofile: int | None = None) -> Worker:
    plan.instance.plan.write_bytes(dump_plan(plan))
    log = plan.instance.run_dir / "proxy.log"
    with (
        socket.create_server(("127.0.0.1", 0), backlog=BACKLOG) as listener,
        socket.socket(socket.AF_UNIX) as unix,
        log.open("wb") as output,
    ):
        port = listener.getsockname()[1]
        if plan.proxy.unix_socket is not None:
            unix.bind(plan.proxy.unix_socket)
            unix.listen(512)
        limit = ["prlimit", f"--nofile={nofile}:{nofile}"] if nofile else []
        process = subprocess.Popen(
            [
                *limit,
                sys.executable,
                "-m",
                "vllm_circus.proxy",
                "--plan",
                str(plan.instance.plan),
                "--fd",
                str(listener.fileno()),
                *(["--unix-fd", str(unix.fileno())] if plan.proxy.unix_socket is not None else []),
            ],
            pass_fds=[listener.fileno(), unix.fileno()],
            stdout=output,
            stderr=output,
            env=os.environ | dict(PROXY_MALLOC) | (environ or {}),
        )
    return Worker(plan, port, process, log)


def wait_until_serving(worker: Worker) -> None:
    """As long as an interpreter may take to begin, beside others that begin."""
    begun = until(lambda: b"serves" in worker.log.read_bytes() or worker.process.poll() is not None, 60)
    assert begun, worker.log.read_text()
    assert worker.process.poll() is None, worker.log.read_text()


@pytest.fixture
def start(short_dir: Path) -> Iterator[Start]:
    """Starts a worker for models by name and port, with these settings of the proxy."""
    workers: list[Worker] = []

    def begin(
        *models: ModelPlan, environ: dict[str, str] | None = None, nofile: int | None = None, **proxy: Any
    ) -> Worker:
        worker = start_worker(a_plan(short_dir, *models, **proxy), environ, nofile)
        workers.append(worker)
        wait_until_serving(worker)
        return worker

    yield begin
    for worker in workers:
        worker.hang_up()
        worker.process.kill()
        worker.process.wait(DEADLINE)


@pytest.fixture
def backend() -> Iterator[Backend]:
    made = Backend()
    yield made
    made.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Worker, Backend, Backend]]:
    import shutil
    import tempfile

    folder = Path(tempfile.mkdtemp(prefix="vc", dir="/tmp"))
    first, second = Backend(), Backend()
    models = (
        a_model("alpha", first.port, aliases=("alpha-alias", "Org/Alpha"), adapters=(Adapter("alpha-lora", "/x"),)),
        a_model("beta", second.port),
    )
    worker = start_worker(a_plan(folder, *models, cors=("https://good.example",)))
    wait_until_serving(worker)
    yield worker, first, second
    worker.hang_up()
    worker.process.kill()
    worker.process.wait(DEADLINE)
    first.close()
    second.close()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def worker(shared: tuple[Worker, Backend, Backend]) -> Iterator[Worker]:
    """A worker with the models alpha and beta, shared by the tests of a module."""
    yield shared[0]
    shared[0].hang_up()


@pytest.fixture
def alpha(shared: tuple[Worker, Backend, Backend]) -> Backend:
    """The engine of the model alpha, answering `{"ok":true}` until told otherwise."""
    shared[1].answers(
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 11\r\n\r\n" + b'{"ok":true}'
    )
    return shared[1]


@pytest.fixture
def beta(shared: tuple[Worker, Backend, Backend]) -> Backend:
    """The engine of the model beta."""
    shared[2].answers(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 4\r\n\r\nbeta")
    return shared[2]
