"""A set whose engines have memory of the card, and eyes for both."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import requests
import yaml

from tests.e2e.conftest import Circus
from tests.plugins.sets import free_port
from tests.real_gpu.card import ROOT, Card
from tests.real_gpu.engine import JOURNAL

#: What every model here has in common.
COMMON = {
    "gpus": [0],
    "probe": {"interval": 0.3, "timeout": 2.0},
    "restart": {"first_delay": 0.3, "factor": 1, "max_tries": 3},
    "stop_timeout": 5,
}


@dataclass(frozen=True)
class Entry:
    """A line of the journal."""

    what: str
    pid: int
    at: float


@dataclass
class Fleet:
    """The set."""

    circus: Circus
    card: Card
    url: str
    journal: Path

    def entries(self, what: str, since: float = 0.0) -> list[Entry]:
        """What the engines told, of one kind."""
        lines = self.journal.read_text().splitlines() if self.journal.exists() else []
        found = [Entry(kind, int(pid), float(at)) for kind, pid, at in map(str.split, lines)]
        return [entry for entry in found if entry.what == what and entry.at >= since]

    def core(self, name: str) -> int:
        """The pid of a model's engine core, which has its memory."""
        server = psutil.Process(self.circus.model(name)["pid"])
        return next(child.pid for child in server.children() if child.cmdline()[:1] == ["VLLM::EngineCore"])

    def why(self, name: str) -> dict[str, Any]:
        """`why NAME --json`."""
        (document,) = json.loads(self.circus("why", name, "--json").stdout)
        return dict(document)

    def ask(self, name: str) -> int:
        """The status of an answer of a model."""
        body = {"model": name, "max_tokens": 2, "messages": [{"role": "user", "content": "x"}]}
        return requests.post(f"{self.url}/chat/completions", json=body, timeout=60).status_code


@contextmanager
def fleet(card: Card, models: list[dict[str, object]]) -> Iterator[Fleet]:
    """A set of these models that is up, until the end of the block; nothing of it is left then."""
    home = Path(tempfile.mkdtemp(prefix="vc", dir="/tmp"))
    circus = Circus(home, environ_too={**card.environ, JOURNAL: str(home / "journal")})
    try:
        config = write_config(home, models)
        circus("up", str(config), "-d", "--wait")
        yield Fleet(circus, card, circus.status()["proxy"]["url"], home / "journal")
    finally:
        circus.end()
        left = circus.processes()
        shutil.rmtree(home, ignore_errors=True)
    assert left == []


def write_config(folder: Path, models: list[dict[str, object]]) -> Path:
    """A models file whose engine is the simulator that takes memory, with a folder for each model."""
    program = folder / "vllm"
    simulated = "--sim-load-seconds 0.2 --sim-exit-seconds 0 --sim-death-seconds 0.2"
    program.write_text(
        f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m tests.real_gpu.engine "$@" {simulated}\n'
    )
    program.chmod(0o755)
    for model in models:
        (folder / str(model["name"])).mkdir(exist_ok=True)
        (folder / str(model["name"]) / "config.json").write_text("{}")
    common = {**COMMON, "executable": str(program)}
    whole = [{"model": str(folder / str(model["name"])), "port": free_port(), **common, **model} for model in models]
    config = folder / "models.yaml"
    config.write_text(yaml.safe_dump({"proxy": {"host": "127.0.0.1", "port": free_port()}, "models": whole}))
    return config
