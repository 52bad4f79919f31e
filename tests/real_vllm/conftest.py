"""One set with real engines for the whole run, beside neighbours that it must leave alone."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.real_vllm.agree import Pair
from tests.real_vllm.fleet import (
    LOAD_LIMIT,
    LORA_A,
    MODEL_A,
    MODEL_B,
    MODEL_POOL,
    Engine,
    Fleet,
    run_command,
    write_config,
)

Report = Callable[[str], None]

HERE = Path(__file__).parent
_LINES = pytest.StashKey[list[str]]()
_BEGIN = pytest.StashKey[float]()


def pytest_configure(config: pytest.Config) -> None:
    """Room for what the tests measure."""
    config.stash[_LINES] = []
    config.stash[_BEGIN] = time.monotonic()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The module whose last tests break and end the set comes last."""
    items.sort(key=lambda item: item.path.name == "test_real_engines.py")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print what the tests measured."""
    terminalreporter.section("measured with a real vLLM")
    for line in config.stash[_LINES]:
        terminalreporter.write_line(line)
    terminalreporter.write_line(f"the whole run: {time.monotonic() - config.stash[_BEGIN]:.0f} s")


@pytest.fixture(scope="session")
def report(pytestconfig: pytest.Config) -> Report:
    """Takes a line that is printed at the end of the run."""
    return pytestconfig.stash[_LINES].append


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """The installed vLLM with two models and an adapter."""
    venv = Path(os.environ.get("VLLM_CIRCUS_TEST_VLLM", ".vllm")).absolute()
    program = venv / "bin/vllm"
    assert program.exists(), f"no vLLM in {venv}: `make test-vllm` installs one"
    models = tmp_path_factory.mktemp("models")
    make = [str(venv / "bin/python"), str(HERE / "make_tiny_model.py")]
    subprocess.run([*make, models / MODEL_A, "--lora", models / LORA_A], check=True)
    subprocess.run([*make, models / MODEL_B, "--seed", "7"], check=True)
    return Engine(program, models)


@pytest.fixture(scope="session")
def home() -> Iterator[Path]:
    """VLLM_CIRCUS_HOME of every instance here."""
    path = Path(tempfile.mkdtemp(prefix="vc", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def by_hand(engine: Engine, home: Path, free_ports: Callable[[int], int]) -> Iterator[int]:
    """Port of a vLLM that somebody else started; it loads while the set loads."""
    port = free_ports(1)
    with engine.serve_by_hand(MODEL_B, port, home / "by-hand.log"):
        yield port


@dataclass(frozen=True)
class Neighbour:
    """Another instance, with a simulated model."""

    home: Path
    port: int

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`vllm-circus --instance neighbour WORDS…`."""
        return run_command(self.home, "--instance", "neighbour", *words, limit=120)


@pytest.fixture(scope="session")
def neighbour(home: Path, free_ports: Callable[[int], int]) -> Iterator[Neighbour]:
    """A second set beside the first, in the same home."""
    port = free_ports(2)
    model = {"name": "other", "model": "simulated/other", "engine": "simulator", "port": port + 1}
    config = home / "neighbour.yaml"
    config.write_text(yaml.safe_dump({"proxy": {"host": "127.0.0.1", "port": port}, "models": [model]}))
    neighbour = Neighbour(home, port)
    up = neighbour.command("up", "-d", "--wait", str(config))
    assert up.returncode == 0, up.stderr
    yield neighbour
    neighbour.command("down")


@pytest.fixture(scope="session")
def fleet(
    engine: Engine, home: Path, by_hand: int, free_ports: Callable[[int], int], report: Report
) -> Iterator[Fleet]:
    """The set, every model of it ready."""
    port = free_ports(5)
    write_config(home / "models.yaml", engine, port, by_hand)
    begin = time.monotonic()
    up = run_command(home, "up", "-d", "--wait", str(home / "models.yaml"), limit=LOAD_LIMIT)
    fleet = Fleet(home, port, time.monotonic() - begin)
    try:
        assert up.returncode == 0, f"{up.stderr}\n{fleet.command('logs', '-n', '50').stdout}"
        report(f"three engines of ours and one started by hand ready after {fleet.started_in:.1f} s")
        yield fleet
    finally:
        fleet.command("down")


@pytest.fixture(scope="session")
def pair(fleet: Fleet) -> Pair:
    """The two ways to a model that makes text."""
    return fleet.pair(MODEL_A)


@pytest.fixture(scope="session")
def pooling_pair(fleet: Fleet) -> Pair:
    """The two ways to a model that makes embeddings."""
    return fleet.pair(MODEL_POOL)


@pytest.fixture(scope="session")
def free_ports() -> Callable[[int], int]:
    """A function that names the first of so many neighbouring loopback ports that nobody listens on."""
    given = set[int]()

    def usable(port: int) -> bool:
        with socket.socket() as probe:
            return port not in given and probe.connect_ex(("127.0.0.1", port)) != 0

    def find(count: int) -> int:
        starts = iter(lambda: random.randrange(21000, 29000), None)  # another run beside this one looks elsewhere
        first = next(port for port in starts if all(usable(port + step) for step in range(count)))
        given.update(range(first, first + count))
        return first

    return find
