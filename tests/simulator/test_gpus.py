"""Memory of GPUs that simulators share."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from .running import Simulate, read_all, take_apart, until

GIB = 1 << 30
SLEEPS = {"VLLM_SERVER_DEV_MODE": "1", "CUDA_VISIBLE_DEVICES": "0,1"}


def held(folder: Path) -> list[int]:
    return sorted(int(file.read_text()) // GIB for file in folder.iterdir())


def test_memory_is_taken_given_back_asleep_and_has_to_be_free_to_wake_up(begin: Simulate, short_dir: Path) -> None:
    folder = short_dir / "gpus"
    folder.mkdir()
    flags = ("--sim-gpus", str(folder), "--enable-sleep-mode", "--gpu-memory-utilization")
    first = begin(*flags, "0.5", environ=SLEEPS).wait_ready()
    assert held(folder) == [40, 40]
    refused = begin(*flags, "0.6", environ=SLEEPS)
    assert refused.wait() == 1
    assert "ValueError: Free memory on device cuda:0 (40.00/80.00 GiB) on startup is less than" in refused.err
    first.ask("POST", "/sleep?level=1")
    assert held(folder) == [1, 1]
    second = begin(*flags, "0.6", environ=SLEEPS).wait_ready()
    assert first.ask("POST", "/wake_up").status == 500
    assert first.ask("GET", "/is_sleeping").json == {"is_sleeping": True}
    os.killpg(second.process.pid, signal.SIGKILL)
    second.wait()
    until(lambda: first.ask("POST", "/wake_up").status == 200)


def test_an_engine_that_dies_while_it_falls_asleep_is_no_sleeper(begin: Simulate, short_dir: Path) -> None:
    folder = short_dir / "gpus"
    folder.mkdir()
    one = begin("--sim-gpus", str(folder), "--enable-sleep-mode", environ=SLEEPS).wait_ready()
    core = one.tree()["VLLM::EngineCore"]
    core.suspend()
    with one.send("POST", "/sleep?level=1") as connection:
        until(lambda: one.ask("GET", "/is_sleeping").json == {"is_sleeping": True})  # so it has the request
        core.kill()
        assert take_apart(read_all(connection)).status == 500
