"""A set under a real circusd, and eyes for it."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from vllm_circus.bus.command import send_command
from vllm_circus.bus.messages import (
    TOPIC_COUNTS,
    TOPIC_MODELS,
    CommandMessage,
    CountsMessage,
    ModelsMessage,
    ModelState,
    Verb,
)
from vllm_circus.bus.subscribe import latest
from vllm_circus.lifecycle.states import State
from vllm_circus.paths import Instance, find_instance
from vllm_circus.supervise.client import Client
from vllm_circus.supervise.proc import every_process, read_process

from .conftest import wait_until


@dataclass
class Set:
    """A running set, and eyes for it."""

    instance: Instance
    port: int
    process: subprocess.Popen[bytes]
    circus: Client

    def models(self) -> ModelsMessage:
        message = latest(self.instance.health_bus, TOPIC_MODELS, ModelsMessage, 15)
        assert message is not None, "the health plugin is silent"
        return message

    def model(self, name: str) -> ModelState:
        return next(model for model in self.models().models if model.name == name)

    def counts(self) -> CountsMessage:
        message = latest(self.instance.stats_bus, TOPIC_COUNTS, CountsMessage, 15)
        assert message is not None, "the stats plugin is silent"
        return message

    def is_in(self, name: str, state: State) -> ModelState | None:
        found = self.model(name)
        return found if found.state is state else None

    def wait(self, name: str, state: State, seconds: float = 30.0) -> ModelState:
        found = wait_until(lambda: self.is_in(name, state), seconds)
        assert isinstance(found, ModelState)
        return found

    def wish(self, verb: Verb, *names: str) -> None:
        reply = send_command(self.instance.commands, CommandMessage(verb, names), 10)
        assert (reply.accepted, reply.error) == (names, "")

    def chat(self, model: str, tokens: int = 3, *, stream: bool = False) -> tuple[int, bytes]:
        body = {"model": model, "messages": [{"role": "user", "content": "x"}], "max_tokens": tokens, "stream": stream}
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/v1/chat/completions",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def plugin(self, name: str) -> int:
        (pid,) = wait_until(lambda: [p for p in self.circus.pids(f"plugin:{name}") if alive(p)])
        return int(pid)


def alive(pid: int) -> bool:
    found = read_process(pid)
    return found is not None and found.alive


def session(leader: int) -> set[int]:
    return {found.pid for found in every_process() if found.session == leader and found.alive}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def run(config: Mapping[str, object], port: int, environ: Mapping[str, str] | None = None) -> Iterator[Set]:
    """Run a set of this configuration until the end of the block; nothing of it is left then."""
    with tempfile.TemporaryDirectory(prefix="vc", dir="/tmp") as name:
        file = Path(name) / "models.yaml"
        file.write_text(yaml.safe_dump(dict(config)))
        whole = {**os.environ, **(environ or {}), "VLLM_CIRCUS_HOME": name}
        instance = find_instance(environ=whole)
        log = Path(name) / "out"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "vllm_circus", "run", str(file)], env=whole, stdout=out, stderr=out
            )
        running = Set(instance, port, process, Client(instance.control, timeout=20))
        try:
            wait_until(lambda: Path(instance.health_bus.removeprefix("ipc://")).exists(), 30)
            yield running
        finally:
            running.circus.close()
            process.terminate()
            assert process.wait(30) == 0, log.read_text()
            assert session(process.pid) <= {process.pid}


def assert_nothing_failed_inside(running: Set) -> None:
    for name in ("health", "stats"):
        log = running.instance.log(name).read_text()
        assert "Traceback" not in log, log
