"""Our own proxy: workers as circusd would start them, with a plan from a models file and a socket to inherit."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import zmq

from tests.bench.process import end, start
from tests.bench.targets import Proxy, Stage, Target, engine_command, wait_until_it_answers
from tests.bench.wire import KEY, MODEL, ORIGIN, model_names
from vllm_circus.config.load import load_config
from vllm_circus.facts import gather_facts
from vllm_circus.paths import Instance, find_instance
from vllm_circus.plan.decide import make_plan
from vllm_circus.plan.types import Plan, dump_plan
from vllm_circus.render.ini import PROXY_MALLOC

CIRCUS = "vllm-circus"
CIRCUS_FULL = "vllm-circus-full"


@dataclass(frozen=True)
class Setting:
    """How ours runs. `full` is with everything on: keys, CORS and metrics; else metrics alone."""

    full: bool = True
    workers: int = 1
    models: int = 1


def circus(setting: Setting, *names: str) -> Proxy:
    """Our proxy with this setting, as a column of that name."""
    return Proxy(partial(_run, setting=setting), names)


@contextmanager
def _run(stage: Stage, proxy: Proxy, *, setting: Setting) -> Iterator[Target]:
    home = stage.folder(proxy.name)
    log = home / "proxy.log"
    with ExitStack() as stack:
        with socket.create_server(("127.0.0.1", 0), backlog=4096) as listener:
            port: int = listener.getsockname()[1]
            plan = _make_plan(home, port, stage.engine, setting)
            fd = listener.fileno()
            argv = [sys.executable, "-m", "vllm_circus.proxy", "--plan", str(plan.instance.plan), "--fd", str(fd)]
            workers = []
            for number in range(setting.workers):
                core = stage.cores.proxies[number % len(stage.cores.proxies)]
                workers.append(start(argv, core, log=log, fds=(fd,), env=dict(PROXY_MALLOC)))
                stack.callback(end, workers[-1])
        stack.enter_context(_bind_buses(plan.instance))
        for worker in workers:
            wait_until_it_answers(worker, port, log)
        pids = tuple(worker.pid for worker in workers)
        yield Target(proxy.name, port, pids, stage.load, models=setting.models, helpers=stage.helpers)


@contextmanager
def _bind_buses(instance: Instance) -> Iterator[None]:
    """Where the worker reports and listens; nobody says anything: a model of which nothing is known is routed to."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    kinds = {instance.health_bus: zmq.XPUB, instance.stats_bus: zmq.XPUB, instance.stats_inbox: zmq.PULL}
    sockets = {address: context.socket(kind) for address, kind in kinds.items()}  # closed when nobody holds them
    try:
        for address, bound in sockets.items():
            bound.bind(address)
        yield
    finally:
        context.destroy(linger=0)


def _make_plan(home: Path, port: int, engine: int, setting: Setting) -> Plan:
    """Everything on but the request log, and a place for every connection that is made here."""
    instance = find_instance("bench", {"VLLM_CIRCUS_HOME": str(home)})
    instance.run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    proxy: dict[str, object] = {"host": "127.0.0.1", "port": port, "metrics": True, "request_logging": False}
    proxy |= {"cors": False, "limits": {"max_connections": 20_000}}
    if setting.full:
        key_file = home / "keys"
        key_file.touch(mode=0o600)
        key_file.write_text(f"{KEY}\n")
        proxy |= {"keys": {"file": str(key_file)}, "cors": [ORIGIN]}
    command = [*engine_command(), "--port", "{port}"]
    model = {"name": MODEL, "model": MODEL, "port": engine, "engine": {"command": command}}
    models_file = home / "models.yaml"
    models_file.write_text(json.dumps({"proxy": proxy, "models": [model]}))  # JSON is YAML too
    plan = make_plan(load_config(models_file), instance, gather_facts(own_ports=frozenset({port, engine})))
    (only,) = plan.models
    # Written as a plan, for no models file may give one port to a thousand models.
    models = tuple(
        replace(only, name=name, group=name, names=(name,), watcher=f"model-{name}")
        for name in model_names(setting.models)
    )
    plan = replace(plan, models=models)
    instance.plan.write_bytes(dump_plan(plan))
    return plan
