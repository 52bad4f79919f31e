"""What becomes of a real engine that is killed, ended while it loads, or cannot start: its state, why, and its tree."""

from __future__ import annotations

import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from tests.real_vllm.conftest import Report
from tests.real_vllm.fleet import (
    ENGINE_ARGS,
    ENGINE_ENV,
    LOAD_LIMIT,
    MODEL_B,
    Engine,
    Fleet,
    family,
    listening,
    living,
    run_command,
    wait_for,
)

pytestmark = pytest.mark.timeout(900)

#: With a process of its own for the worker, as engines on several GPUs have it.
APART = {"distributed-executor-backend": "mp"}
PARTS = {"API server": "vllm", "engine": "VLLM::EngineCore", "worker": "VLLM::Worker"}
CAUSES = {
    "API server": "SIGKILL",
    "engine": "engine process was killed",
    "worker": "worker process VllmWorker-0 was killed",
}


def config(engine: Engine, port: int, taken: int) -> dict[str, object]:
    """One model that works, and three that cannot start; each is started by its test."""
    good, eager = engine.model(MODEL_B), {"first_delay": 0.1, "max_delay": 0.1}
    models: list[dict[str, object]] = [
        {"name": "good", "model": good, "port": port + 1, "args": {**ENGINE_ARGS, **APART}, "restart": eager},
        {"name": "hollow", "model": engine.model("hollow"), "port": port + 2},
        {"name": "greedy", "model": good, "port": port + 3, "args": {"max-model-len": 1_000_000}},
        {"name": "late", "model": good, "port": taken},
    ]
    return {
        "proxy": {"host": "127.0.0.1", "port": port},
        "defaults": {"executable": str(engine.program), "args": ENGINE_ARGS, "env": ENGINE_ENV},
        "models": [{"enabled": False, "restart": {"max_tries": 1}, **model} for model in models],
    }


@pytest.fixture(scope="module")
def taken() -> Iterator[int]:
    """A port that somebody else has."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        yield port


@pytest.fixture(scope="module")
def ward(engine: Engine, free_ports: Callable[[int], int], taken: int) -> Iterator[Fleet]:
    """A set of its own, in which nothing runs yet."""
    home = Path(tempfile.mkdtemp(prefix="vc", dir="/tmp"))
    Path(engine.model("hollow")).mkdir(exist_ok=True)
    file, port = home / "models.yaml", free_ports(4)
    file.write_text(yaml.safe_dump(config(engine, port, taken)))
    up = run_command(home, "up", "-d", str(file), limit=60)
    assert up.returncode == 0, up.stderr
    ward = Fleet(home, port, 0.0)
    try:
        yield ward
    finally:
        ward.command("down")
        shutil.rmtree(home, ignore_errors=True)


def in_state(ward: Fleet, name: str, state: str, seconds: float = LOAD_LIMIT) -> Any:
    """The model, as soon as it is in this state."""
    wait_for(lambda: ward.model(name)["state"] == state, f"{name} to be {state}", seconds)
    return ward.model(name)


def part_of(pid: int, title: str) -> psutil.Process:
    """The process of an engine's tree that is called so."""
    return next(one for one in family(pid) if " ".join(one.cmdline()).startswith(title) or one.name().startswith(title))


def why(ward: Fleet, name: str) -> str:
    """`why NAME`."""
    told = ward.command("why", name)
    assert told.returncode == 0, told.stderr
    return told.stdout


@pytest.mark.parametrize("part", PARTS)
def test_a_killed_part_takes_its_tree_along_and_the_engine_is_started_again(
    ward: Fleet, report: Report, part: str
) -> None:
    ward.command("start", "good", "--no-wait")
    before = in_state(ward, "good", "ready")
    tree = family(before["pid"])
    began = time.monotonic()
    (tree[0] if part == "API server" else part_of(before["pid"], PARTS[part])).kill()
    gone = wait_for(lambda: not living(tree), "the whole tree to be gone", 30)
    wait_for(lambda: ward.model("good")["pid"] not in {before["pid"], None}, "another one", 30)
    after = in_state(ward, "good", "ready")
    report(f"kill -9 of the {part}: tree gone after {gone:.1f} s, ready after {time.monotonic() - began:.1f} s")
    report(f"  {after['crash']['why']['cause']}")
    assert CAUSES[part] in after["crash"]["why"]["cause"]
    assert after["crash"]["why"]["cause"] in why(ward, "good")


def test_a_stop_in_mid_start_up_ends_the_tree_and_it_rests(ward: Fleet, report: Report) -> None:
    """vLLM heeds a SIGTERM then late or never, so this takes up to `stop_timeout`."""
    ward.command("restart", "good", "--no-wait")
    wait_for(lambda: ward.model("good")["phase"], "a phase of loading", 60)
    tree = family(ward.model("good")["pid"])
    began = time.monotonic()
    assert ward.command("stop", "good").returncode == 0
    assert ward.model("good")["state"] == "stopped"
    assert not living(tree)
    report(f"stop in mid start-up took {time.monotonic() - began:.1f} s")


@pytest.mark.parametrize(
    ("name", "cause", "fix"),
    [
        ("hollow", "config", "model"),
        ("greedy", "1000000", "max-model-len"),
        ("late", "port", "port"),
    ],
)
def test_one_that_cannot_start_fails_and_says_why(
    ward: Fleet, report: Report, name: str, cause: str, fix: str, taken: int
) -> None:
    ward.command("start", name, "--no-wait")
    failed = in_state(ward, name, "failed")
    report(f"{name}: {failed['reason']}")
    report(f"  {failed['fix']}")
    assert failed["pid"] is None
    assert cause in failed["reason"]
    assert fix in failed["fix"]
    assert "root cause" not in failed["reason"]
    assert failed["reason"] in why(ward, name)
    assert name != "late" or str(taken) in failed["reason"]
    assert name == "late" or not listening(failed["port"])


def test_nothing_is_left_of_any_engine(ward: Fleet) -> None:
    circusd = psutil.Process(ward.status()["circusd"]["pid"])
    left = [one.name() for one in circusd.children(recursive=True) if one.name().startswith(("vllm", "VLLM"))]
    assert left == []
