"""What is measured: the mock engine itself, and proxies in front of it, each in a process of its own.

A further proxy is one more function here that yields a `Target`. Each gets the fastest settings that its makers
document for such traffic, and nothing that a user could not set.
"""

from __future__ import annotations

import http.client
import json
import os
import pwd
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import zmq

from tests.bench.load import BenchError
from tests.bench.process import Cores, end, start
from tests.bench.wire import KEY, MODEL, PATH, make_request
from vllm_circus.config.load import load_config
from vllm_circus.facts import gather_facts
from vllm_circus.paths import Instance, find_instance
from vllm_circus.plan.decide import make_plan
from vllm_circus.plan.types import Plan, dump_plan

DIRECT = "direct"
NGINX = "nginx"
CIRCUS = "vllm-circus"
CIRCUS_KEYS = "vllm-circus-keys"

#: Seconds that a process may take until it answers.
_START_TIMEOUT = 30.0

_NGINX_CONF = """\
daemon off;
{user}
worker_processes 1;
pid nginx.pid;
error_log stderr warn;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    server_tokens off;
    tcp_nodelay on;
    keepalive_requests 1000000000;
    client_max_body_size 0;
    client_body_buffer_size 1m;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    scgi_temp_path scgi;
    uwsgi_temp_path uwsgi;
    upstream engine {{
        server 127.0.0.1:{engine};
        keepalive 1024;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        location / {{
            proxy_pass http://engine;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
            proxy_read_timeout 600s;
        }}
    }}
}}
"""


@dataclass(frozen=True)
class Target:
    """Something that answers on a loopback port. `pids` are the proxy's own processes, none for the engine itself."""

    name: str
    port: int
    pids: tuple[int, ...]
    version: str


def nginx_program() -> str | None:
    """Where nginx is, on the PATH or where Debian puts it."""
    return shutil.which("nginx", path=os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin")))


@contextmanager
def run_engine(home: Path, cores: Cores) -> Iterator[tuple[int, int]]:
    """The mock engine, on the load's core: its port and its pid."""
    log = home / "engine.log"
    process = start([*_engine_command(), "--port", "0"], cores.load, log=log, piped=True)
    try:
        line = process.stdout.readline() if process.stdout is not None else ""
        if not line.strip().isdigit():
            raise BenchError(f"the mock engine does not start:\n{_last_words(log)}")
        yield int(line), process.pid
    finally:
        end(process)


@contextmanager
def run_nginx(home: Path, cores: Cores, engine: int, program: str) -> Iterator[Target]:
    """nginx with one worker, which passes everything on to the one engine."""
    port, log = _free_port(), home / "nginx.log"
    conf = home / "nginx.conf"
    user = f"user {pwd.getpwuid(0).pw_name};" if os.geteuid() == 0 else ""  # else its worker cannot enter our folder
    conf.write_text(_NGINX_CONF.format(user=user, engine=engine, port=port))
    process = start([program, "-p", str(home), "-c", str(conf), "-e", "stderr"], cores.proxy, log=log)
    try:
        _wait_until_it_answers(process, port, log)
        workers = tuple(child.pid for child in psutil.Process(process.pid).children())
        yield Target(NGINX, port, workers, _version_of_nginx(program))
    finally:
        end(process)


@contextmanager
def run_circus(home: Path, cores: Cores, engine: int, *, keys: bool) -> Iterator[Target]:
    """A proxy worker as circusd would start it: a plan from a models file, and a listening socket to inherit."""
    home = home / ("keys" if keys else "open")
    log = home / "proxy.log"
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        port = listener.getsockname()[1]
        plan = _make_plan(home, port, engine, keys=keys)
        descriptor = listener.fileno()
        argv = [sys.executable, "-m", "vllm_circus.proxy", "--plan", str(plan.instance.plan), "--fd", str(descriptor)]
        process = start(argv, cores.proxy, log=log, fds=(descriptor,))
    try:
        with _bind_buses(plan.instance):
            _wait_until_it_answers(process, port, log)
            yield Target(CIRCUS_KEYS if keys else CIRCUS, port, (process.pid,), "")
    finally:
        end(process)


@contextmanager
def _bind_buses(instance: Instance) -> Iterator[None]:
    """Where the worker reports and listens; nobody says anything: a model of which nothing is known is routed to."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    try:
        for kind, address in (
            (zmq.XPUB, instance.health_bus),
            (zmq.XPUB, instance.stats_bus),
            (zmq.PULL, instance.stats_inbox),
        ):
            context.socket(kind).bind(address)
        yield
    finally:
        context.destroy(linger=0)


def _make_plan(home: Path, port: int, engine: int, *, keys: bool) -> Plan:
    """Everything on but the request log."""
    instance = find_instance("bench", {"VLLM_CIRCUS_HOME": str(home)})
    instance.run_dir.mkdir(mode=0o700, parents=True)
    proxy: dict[str, object] = {"host": "127.0.0.1", "port": port, "metrics": True, "request_logging": False}
    if keys:
        key_file = home / "keys"
        key_file.touch(mode=0o600)
        key_file.write_text(f"{KEY}\n")
        proxy["keys"] = {"file": str(key_file)}
    command = [*_engine_command(), "--port", "{port}"]
    model = {"name": MODEL, "model": MODEL, "port": engine, "engine": {"command": command}}
    models_file = home / "models.yaml"
    models_file.write_text(json.dumps({"proxy": proxy, "models": [model]}))  # JSON is YAML too
    plan = make_plan(load_config(models_file), instance, gather_facts(own_ports=frozenset({port, engine})))
    instance.plan.write_bytes(dump_plan(plan))
    return plan


def _engine_command() -> list[str]:
    return [sys.executable, "-m", "tests.bench.backend"]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_it_answers(process: subprocess.Popen[str], port: int, log: Path) -> None:
    """Ask for a completion until one comes."""
    deadline = time.monotonic() + _START_TIMEOUT
    why = "no answer"
    while time.monotonic() < deadline and process.poll() is None:
        try:
            why = _ask(port)
        except (OSError, http.client.HTTPException) as error:
            why = str(error)
        if not why:
            return
        time.sleep(0.05)
    raise BenchError(f"{process.args!r} does not serve: {why}\n{_last_words(log)}")


def _ask(port: int) -> str:
    """Empty, or what was answered instead of 200."""
    body = make_request().partition(b"\r\n\r\n")[2]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        connection.request("POST", PATH, body, headers)
        response = connection.getresponse()
        text = response.read()
        return "" if response.status == 200 else f"{response.status} {text[:400]!r}"
    finally:
        connection.close()


def _last_words(log: Path) -> str:
    return log.read_text(errors="replace")[-2000:] if log.exists() else ""


def _version_of_nginx(program: str) -> str:
    said = subprocess.run([program, "-v"], capture_output=True, text=True, timeout=10, check=True).stderr
    match = re.search(r"nginx/(\S+)", said)
    return match[1] if match else said.strip()
