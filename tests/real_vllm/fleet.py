"""Real engines behind a real set: how the tests bring them up, reach them, and find out what became of them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml
from openai import OpenAI

from tests.real_vllm.agree import Pair, Side

#: What every engine here gets: it must load fast, and fit beside others on a small machine.
ENGINE_ARGS = {"enforce-eager": True, "max-model-len": 512, "kv-cache-memory-bytes": "64M"}
ENGINE_ENV = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "TORCH_COMPILE_DISABLE": "1",  # else the first request for logprobs compiles for half a minute
    "PYTHONPATH": str(Path(__file__).with_name("engine_path")),  # else one that makes tokens stops all others
}
LOAD_LIMIT = 300.0
MODEL_A, ALIAS_A, LORA_A, MODEL_B = "tiny-a", "org/Tiny-A", "tiny-a-lora", "tiny-b"
#: Tokens that the first one can take: enough for an answer that is still being made when it is given up.
ROOM_A = 16_384
#: Makes embeddings, from the weights of the other one.
MODEL_POOL = "tiny-pool"
#: The engine that somebody else started; the set reaches it through a tap.
BY_HAND = "by-hand"
TAP = Path(__file__).with_name("tap.py")


@dataclass(frozen=True)
class Engine:
    """An installed vLLM, and the models that were made for it."""

    program: Path
    models: Path

    def model(self, name: str) -> str:
        """The folder of a model or adapter."""
        return str(self.models / name)

    @contextmanager
    def serve_by_hand(self, name: str, port: int, log: Path) -> Iterator[None]:
        """`vllm serve` as somebody would start it in another terminal; ended with all its processes."""
        argv = [str(self.program), "serve", self.model(name), "--host", "127.0.0.1", "--port", str(port)]
        argv += ["--served-model-name", BY_HAND, "--enforce-eager", "--max-model-len", "512"]
        argv += ["--kv-cache-memory-bytes", "64M"]
        with log.open("wb") as output:
            environment = {**os.environ, **ENGINE_ENV}
            process = subprocess.Popen(argv, env=environment, stdout=output, stderr=output, start_new_session=True)
        try:
            yield
        finally:
            end(process)


@dataclass(frozen=True)
class Fleet:
    """A running set with real models.

    Attributes:
        home: VLLM_CIRCUS_HOME.
        port: of the proxy.
        started_in: seconds from `up` to every model ready.
    """

    home: Path
    port: int
    started_in: float

    def client(self) -> OpenAI:
        """The ordinary client, pointed at the proxy; it never tries twice."""
        return OpenAI(base_url=f"http://127.0.0.1:{self.port}/v1", api_key="unused", max_retries=0, timeout=60)

    def command(self, *words: str, limit: float = 120) -> subprocess.CompletedProcess[str]:
        """`vllm-circus WORDS…`."""
        return run_command(self.home, *words, limit=limit)

    def status(self, *options: str) -> Any:
        """`status --json`."""
        return json.loads(self.command("status", "--json", *options).stdout)

    def model(self, name: str) -> Any:
        """One model of the status."""
        return next(model for model in self.status()["models"] if model["name"] == name)

    def engine_key(self, name: str) -> str:
        """The key that the proxy uses towards this engine."""
        secrets = self.home / f"run/default/secrets/{name}.json"
        return str(json.loads(secrets.read_text())["VLLM_API_KEY"])

    def pair(self, name: str) -> Pair:
        """The ways to a model of the set: through the proxy, and past it."""
        url = "http://127.0.0.1:{}"
        direct = Side(url.format(self.model(name)["port"]), self.engine_key(name))
        return Pair(name, Side(url.format(self.port), "unused"), direct)

    def tapped(self, request_id: str) -> tuple[bytes, bytes]:
        """What went through the tap with this id: all of the request, all of the answer."""
        folder = self.home / "tap"
        return (folder / f"{request_id}.request").read_bytes(), (folder / f"{request_id}.answer").read_bytes()


def run_command(home: Path, *words: str, limit: float) -> subprocess.CompletedProcess[str]:
    """`vllm-circus WORDS…` with its folders below `home`."""
    argv = [sys.executable, "-m", "vllm_circus", *words]
    return subprocess.run(argv, env=environ(home), capture_output=True, text=True, check=False, timeout=limit)


def environ(home: Path) -> dict[str, str]:
    """The environment of our commands."""
    return {**os.environ, "VLLM_CIRCUS_HOME": str(home)}


def write_config(path: Path, engine: Engine, port: int, by_hand: int) -> None:
    """Three models, one of embeddings, and the tap to another engine; ports from `port` to `port + 4`."""
    tap = [sys.executable, str(TAP), "{port}", str(by_hand), str(path.parent / "tap")]
    config = {
        "proxy": {"host": "127.0.0.1", "port": port},
        "defaults": {
            "executable": str(engine.program),
            "args": ENGINE_ARGS,
            "env": ENGINE_ENV,
        },
        "models": [
            {
                "name": MODEL_A,
                "model": engine.model(MODEL_A),
                "port": port + 1,
                "aliases": [ALIAS_A],
                "lora": [{"name": LORA_A, "path": engine.model(LORA_A)}],
                "args": {"enable-auto-tool-choice": True, "tool-call-parser": "hermes", "max-model-len": ROOM_A},
                "env": {"VLLM_ENABLE_RESPONSES_API_STORE": "1"},
            },
            {"name": MODEL_B, "model": engine.model(MODEL_B), "port": port + 2},
            {"name": BY_HAND, "model": "tapped", "port": port + 3, "engine": {"command": tap}},
            {
                "name": MODEL_POOL,
                "model": engine.model(MODEL_B),
                "port": port + 4,
                "args": {"runner": "pooling", "convert": "embed"},
            },
        ],
    }
    path.write_text(yaml.safe_dump(config))


def wait_for(condition: Callable[[], object], what: str, seconds: float) -> float:
    """Poll until the condition holds; returns how long it took. Raises TimeoutError."""
    begin = time.monotonic()
    while not condition():
        if time.monotonic() - begin > seconds:
            raise TimeoutError(f"waited {seconds:g} s for {what}")
        time.sleep(0.1)
    return time.monotonic() - begin


def healthy(port: int) -> bool:
    """Whether the server at a loopback port answers /health with 200."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def listening(port: int) -> bool:
    """Whether anybody listens on a loopback port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def family(pid: int) -> list[psutil.Process]:
    """A process and everything below it, now."""
    parent = psutil.Process(pid)
    return [parent, *parent.children(recursive=True)]


def end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, and SIGKILL for what is left of its family after 20 seconds."""
    tree = family(process.pid) if process.poll() is None else []
    process.terminate()
    _, left = psutil.wait_procs(tree, timeout=20)
    for relative in left:
        relative.kill()
    process.wait()


def living(processes: Sequence[psutil.Process]) -> list[psutil.Process]:
    """Those that still run; a zombie does not."""
    return [process for process in processes if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


def memory(processes: Sequence[psutil.Process]) -> int:
    """Bytes in memory of all of them together, pages that they share counted once (PSS)."""
    return sum(process.memory_full_info().pss for process in living(processes))
